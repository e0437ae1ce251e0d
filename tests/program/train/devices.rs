//! Other devices than the CPU, and mixed precision.

#[cfg(feature = "emulated")]
use std::path::Path;

use super::command::{assert_error, sample, train};
#[cfg(feature = "emulated")]
use super::command::{program, rmse, stderr, stdout, with_model};

/// Short enough for the emulated GPU.
const SHORTEST: [&str; 10] =
    ["--units", "3", "--window", "4", "--epochs", "2", "--batch-size", "64", "--learning-rate", "0.01"];

/// On another device the same model comes out, but for rounding; its file works on all.
#[cfg(feature = "emulated")]
#[test]
fn trains_and_predicts_on_the_emulated_device() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let (cpu, device) = (folder.path().join("cpu"), folder.path().join("device"));
    let mut errors = Vec::new();
    for (out, name) in [(&cpu, "cpu"), (&device, "emulated")] {
        let output = train(&data, out, &[&SHORTEST[..], &["--device", name]].concat());
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        errors.push(rmse(&stdout(&output), "LSTM(3)"));
    }
    assert!((errors[0] - errors[1]).abs() < 1e-3, "{errors:?}");
    let forecast = |out: &Path, name: &str| -> Vec<f64> {
        let csv = folder.path().join("forecast.csv");
        let output = program()
            .args(["predict", "--device", name, "--horizon", "3", "--out"])
            .args([&csv, &out.join("model.safetensors"), &data])
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let text = std::fs::read_to_string(csv).unwrap();
        text.lines().skip(1).map(|row| row.split(',').nth(1).unwrap().parse().unwrap()).collect()
    };
    let expected = forecast(&cpu, "cpu");
    for (out, name) in [(&cpu, "emulated"), (&device, "cpu"), (&device, "emulated")] {
        for (got, expected) in forecast(out, name).iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-2, "{name}: {got} {expected}");
        }
    }
}

/// Mixed precision gives another model, near that in f32, whose file is one in f32.
#[cfg(feature = "emulated")]
#[test]
fn trains_in_mixed_precision_on_the_emulated_device() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let run = |precision: &str| {
        let out = folder.path().join(precision);
        let options = [&SHORTEST[..], &["--device", "emulated", "--precision", precision]].concat();
        let output = train(&data, &out, &options);
        assert!(output.status.success(), "{precision}: {}", stderr(&output));
        let model = out.join("model.safetensors");
        assert!(with_model("evaluate", &[&model, &data], &[]).status.success(), "{precision}");
        (rmse(&stdout(&output), "LSTM(3)"), std::fs::read(model).unwrap())
    };
    let (exact, exact_model) = run("f32");
    for precision in ["bf16", "f16"] {
        let (rounded, model) = run(precision);
        assert!((rounded / exact - 1.0).abs() < 0.05, "{precision}: {rounded}, not {exact}");
        assert_ne!(model, exact_model, "{precision}");
    }
}

/// A device that is not there is an error, never another device.
#[test]
fn devices_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    for device in ["cuda", "emulated"] {
        let output = train(&data, folder.path(), &[&SHORTEST[..], &["--device", device]].concat());
        // Where there is one, training succeeds, and other tests say whether it is right.
        if !output.status.success() {
            assert_error(&output, &["not supported"]);
            assert!(!folder.path().join("model.safetensors").exists(), "{device}");
        }
    }
    assert_error(&train(&data, folder.path(), &["--device", "gpu"]), &["cpu", "cuda", "emulated"]);
    let refused = train(&data, folder.path(), &["--precision", "bf16"]);
    assert_error(&refused, &["--precision bf16", "processor", "--device cuda"]);
}
