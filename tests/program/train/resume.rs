//! `train --resume`: whatever ended a training, the one that goes on with it has the results of one that nothing ended.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::command::{assert_error, program, sample, signal, stderr, stdout, train};
use super::forecasts::shops;
use super::rows::{wave_text, waves};
use super::sequences::{classes, ramps};

fn command(data: &Path, out: &Path, options: &[&str]) -> Command {
    let mut command = program();
    command.arg("train").arg(data).arg("--out").arg(out).args(options);
    command
}

/// What a training leaves in its folder, by name.
fn files(out: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap_or_default())
    };
    let mut files: Vec<_> = std::fs::read_dir(out).unwrap().map(|entry| read(entry.unwrap())).collect();
    files.sort();
    files
}

/// What it printed, without seconds and its folder.
fn printed(output: &Output, out: &Path) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    let text = stdout(output).replace(&out.display().to_string(), "OUT");
    let line = |line: &str| match (line.split_once(" epochs in "), line.split_once(" s (")) {
        (Some((epochs, _)), Some((_, why))) => format!("{epochs} epochs ({why}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A training that nothing ends: what it printed and left, and how long it took.
fn whole(data: &Path, out: &Path, options: &[&str]) -> (String, Vec<(String, Vec<u8>)>, Duration) {
    let start = Instant::now();
    let output = train(data, out, options);
    let elapsed = start.elapsed();
    (printed(&output, out), files(out), elapsed)
}

#[track_caller]
fn assert_same_files(got: &[(String, Vec<u8>)], expected: &[(String, Vec<u8>)]) {
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(got), names(expected));
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        assert!(got == expected, "{name} differs");
    }
}

/// Killed at moments from the start of the program to the end of training, and gone on with each time.
fn killed(data: &Path, options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (text, left, whole) = whole(data, &at("whole"), options);
    let out = at("killed");
    let mut checkpoints = 0;
    for fraction in [0.5, 0.05, 0.3, 0.9, 0.2, 0.4, 0.1] {
        let mut resumed = command(data, &out, options);
        resumed.args(["--resume", "--checkpoint-every", "0.01"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = resumed.spawn().unwrap();
        std::thread::sleep(whole.mul_f64(fraction));
        // It may have ended.
        let _ = child.kill();
        child.wait().unwrap();
        checkpoints += usize::from(out.join("checkpoint.safetensors").exists());
    }
    assert!(checkpoints > 0, "nothing was ever written");
    let last = command(data, &out, options).arg("--resume").output().unwrap();
    assert_eq!(printed(&last, &out), text);
    assert_same_files(&files(&out), &left);
}

const SERIES: [&str; 12] =
    ["--units", "8", "--window", "12", "--epochs", "150", "--patience", "150", "--dropout", "0.2", "--cell", "gru"];

#[test]
fn a_series() {
    killed(&sample("sunspots_yearly.csv"), &SERIES);
}

#[test]
fn several_seeds() {
    killed(&sample("sunspots_yearly.csv"), &[&SERIES[..], &["--seeds", "3"]].concat());
}

#[test]
fn a_panel() {
    let folder = tempfile::tempdir().unwrap();
    let data = shops(&folder, &[("north", 10.0, 96), ("south", 1000.0, 84)]);
    killed(&data, &["--units", "6", "--epochs", "150", "--patience", "150", "--panel", "shop"]);
}

#[test]
fn rows_of_classes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.csv");
    std::fs::write(&data, wave_text(&waves(400))).unwrap();
    let options = ["--task", "classification", "--target", "state", "--window", "12", "--units", "6", "--epochs", "60"];
    killed(&data, &[&options[..], &["--patience", "60"]].concat());
}

#[test]
fn sequences_of_classes_and_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let number = |i: usize, slope: f64| format!(":{:.3}", slope * (i % 5) as f64);
    for (label, text) in [
        ("classes", ramps("@classLabel true up down", 80, classes)),
        ("numbers", ramps("@targetLabel true", 80, number)),
    ] {
        let data = folder.path().join(format!("{label}.ts"));
        std::fs::write(&data, text).unwrap();
        killed(&data, &["--units", "6", "--epochs", "120", "--patience", "120", "--bidirectional"]);
    }
}

/// A training stopped by a signal in one of its first epochs.
fn stopped(data: &Path, out: &Path, options: &[&str], name: &str, code: i32) -> String {
    let mut child = command(data, out, options).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("epoch 1/") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "no epoch");
    }
    signal(&child, name);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut errors, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{rest}");
    rest
}

/// More epochs than a signal takes to arrive, but not many more.
const LONG: [&str; 8] = ["--units", "8", "--window", "12", "--epochs", "400", "--patience", "400"];

#[test]
fn signals() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let (text, left, _) = whole(&data, &folder.path().join("whole"), &LONG);
    let out = folder.path().join("stopped");
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let said = stopped(&data, &out, &[&LONG[..], &["--checkpoint-every", "0"]].concat(), name, code);
        assert!(said.contains("interrupted: the best model so far is kept in"), "{said}");
        assert!(said.contains("; --resume goes on with training"), "{said}");
        // The best model so far is there, and so is what goes on.
        let names: Vec<String> = files(&out).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["checkpoint.safetensors", "forecast.svg", "loss.svg", "model.safetensors"]);
        let last = command(&data, &out, &LONG).arg("--resume").output().unwrap();
        assert!(stderr(&last).contains("goes on after epoch "), "{}", stderr(&last));
        let epochs = stderr(&last).lines().filter(|line| line.starts_with("epoch ")).count();
        assert!((1..=20).contains(&epochs) && !stderr(&last).contains("epoch 1/"), "{}", stderr(&last));
        assert_eq!(printed(&last, &out), text);
        assert_same_files(&files(&out), &left);
    }
}

#[test]
fn other_options_and_data_and_damaged_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let out = folder.path().join("out");
    stopped(&data, &out, &LONG, "-INT", 130);
    let checkpoint = out.join("checkpoint.safetensors");
    let before = std::fs::read(&checkpoint).unwrap();
    let other = |data: &Path, more: &[&str]| {
        // What is refused is neither lost nor spoiled.
        let output = train(data, &out, more);
        assert_eq!(std::fs::read(&checkpoint).unwrap(), before);
        output
    };
    let resumed = [&LONG[..], &["--resume"]].concat();
    let changed = |at: usize, value: &'static str| {
        let mut options = resumed.clone();
        options[at] = value;
        options
    };
    assert_error(
        &other(&data, &changed(1, "9")),
        &["option --units: expected 8, as in the training that", "checkpoint.safetensors goes on with", "got 9"],
    );
    let more = [&resumed[..], &["--learning-rate", "0.1"]].concat();
    assert_error(&other(&data, &more), &["option --learning-rate: expected 0.001", "got 0.1"]);
    let text = std::fs::read_to_string(&data).unwrap();
    let shorter: PathBuf = folder.path().join("sunspots_yearly.csv");
    std::fs::write(&shorter, text.trim_end().rsplit_once('\n').unwrap().0).unwrap();
    assert_error(&other(&shorter, &resumed), &["option data: expected", "with the fingerprint"]);
    let backtest = program().arg("backtest").arg(&data).arg("--resume").output().unwrap();
    assert_error(&backtest, &["--resume", "writes no files"]);
    assert_error(&other(&data, &[&LONG[..], &["--checkpoint-every=-1"]].concat()), &["--checkpoint-every"]);

    let mut damaged = before.clone();
    let at = damaged.len() - 5;
    damaged[at] ^= 4;
    std::fs::write(&checkpoint, &damaged).unwrap();
    let refused = train(&data, &out, &resumed);
    assert_error(
        &refused,
        &["not a usable checkpoint file: its content is not what was written; remove it to begin anew"],
    );

    // Without the option a training begins anew, and says so.
    let output = train(&data, &out, &["--units", "2", "--window", "4", "--epochs", "2"]);
    let said = stderr(&output);
    assert!(output.status.success() && said.contains("an unfinished training in"), "{said}");
    assert!(said.contains("is replaced; --resume would have gone on with it"), "{said}");
    assert!(!checkpoint.exists());
    let output = train(&data, &out, &["--units", "2", "--window", "4", "--epochs", "2", "--resume"]);
    assert!(output.status.success() && stderr(&output).contains("no unfinished training in"), "{}", stderr(&output));
}

/// The same options written in other ways, and more epochs.
#[test]
fn more_epochs_and_the_same_options_in_other_words() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let mut more = LONG;
    more[5] = "420";
    let (text, left, _) = whole(&data, &folder.path().join("whole"), &more);
    let out = folder.path().join("stopped");
    stopped(&data, &out, &[&LONG[..], &["--learning-rate", "1e-3"]].concat(), "-INT", 130);
    let options = [
        "--resume",
        "--calendar=auto",
        "--patience=400",
        "--epochs=420",
        "--learning-rate",
        "0.0010",
        "--gaps",
        "error",
        "--window=012",
        "--units",
        "8",
        "--dropout",
        "0",
    ];
    let last = command(&data, &out, &options).output().unwrap();
    assert!(stderr(&last).contains("goes on after epoch "), "{}", stderr(&last));
    assert_eq!(printed(&last, &out), text);
    assert_same_files(&files(&out), &left);
}

/// It would diverge again.
#[test]
fn what_diverges_leaves_nothing_to_go_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--learning-rate", "1e30", "--epochs", "40", "--learn", "values", "--checkpoint-every", "0.001"];
    let output = train(&sample("sunspots_yearly.csv"), folder.path(), &options);
    assert_error(&output, &["training stopped in epoch"]);
    assert!(!folder.path().join("checkpoint.safetensors").exists());
}
