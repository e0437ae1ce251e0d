//! Pipes as data, full disks, and what cannot be written.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::command::{assert_error, is_ignored, program, sample, signal, stderr, stdout, train, with_model};

const SHORT: [&str; 6] = ["--units", "2", "--window", "4", "--epochs", "2"];

/// Signals that end a program which has nothing to keep, as far as they reach it.
fn endings() -> impl Iterator<Item = (&'static str, i32)> {
    [("-INT", 2), ("-TERM", 15)].into_iter().filter(|(_, number)| !is_ignored(*number))
}

/// Sends a signal until the child has ended, and says how.
fn ended_by(mut child: std::process::Child, name: &str) -> Option<i32> {
    let start = Instant::now();
    signal(&child, name);
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(5), "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait().unwrap().signal()
}

#[test]
fn a_named_pipe_is_waited_for_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.csv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let start = |errors| {
        let mut command = program();
        command.arg("train").arg(&pipe).arg("--out").arg(folder.path().join("out")).args(SHORT);
        command.stdout(Stdio::null()).stderr(errors).spawn().unwrap()
    };
    // It says what it waits for, and a signal ends that.
    for (name, number) in endings() {
        let mut child = start(Stdio::piped());
        let mut said = [0; 6];
        let mut errors = child.stderr.take().unwrap();
        errors.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"note: ");
        assert_eq!(ended_by(child, name), Some(number));
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("pipe.csv is a pipe: waiting for the program that writes to it"), "{rest}");
    }
    let child = start(Stdio::piped());
    std::fs::write(&pipe, std::fs::read(sample("sunspots_yearly.csv")).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(folder.path().join("out/model.safetensors").exists());
}

/// Data that do not end: nothing is there to keep, and nothing to wait for.
#[test]
fn while_data_are_read_a_signal_ends_it_at_once() {
    for (name, number) in endings() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program();
        command.args(["train", "/dev/stdin", "--out"]).arg(folder.path().join("out")).args(SHORT);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let rows: String = (0..10_000).map(|row| format!("{row},{}\n", row % 7)).collect();
        input.write_all(format!("t,v\n{rows}").as_bytes()).unwrap();
        assert_eq!(ended_by(child, name), Some(number));
        assert!(!folder.path().join("out").exists());
    }
}

/// What is no text, or no model, says so by its beginning: it is not read to its end, which may not be there.
#[test]
fn what_is_no_text_or_model_is_not_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("program.csv"), b"\x7fELF\x02\x01\x01\0\0\0\0").unwrap();
    for name in ["zero.csv", "zero.ts"] {
        std::os::unix::fs::symlink("/dev/zero", at(name)).unwrap();
    }
    // A terabyte, none of it on the disk.
    for name in ["large.csv", "large.ts", "model.safetensors"] {
        std::fs::File::create(at(name)).unwrap().set_len(1 << 40).unwrap();
    }
    for (name, byte) in [("program.csv", 7), ("zero.csv", 0), ("zero.ts", 0), ("large.csv", 0), ("large.ts", 0)] {
        let refused = train(&at(name), &at("out"), &["--units", "2", "--epochs", "2"]);
        assert_error(&refused, &[name, &format!("not text: byte {byte} is zero")]);
    }
    let summary = |model: &Path| with_model("summary", &[model], &[]);
    assert_error(&summary(&at("model.safetensors")), &["not a usable safetensors file: invalid header"]);
    assert_error(&summary(Path::new("/dev/zero")), &["cannot read /dev/zero: it is a pipe or a device"]);
    let sweep = program().args(["bench", "--grid", "/dev/zero"]).output().unwrap();
    assert_error(&sweep, &["cannot read /dev/zero: it is a pipe or a device"]);
}

/// Text without end is read as far as memory goes.
#[cfg(target_os = "linux")]
#[test]
fn endless_text_ends_with_memory() {
    let folder = tempfile::tempdir().unwrap();
    let train = program().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 600000; out=$1; shift; yes 1,2 | \"$@\" --out \"$out\"", "sh"]);
    shell.arg(folder.path().join("out")).arg(train).args(["train", "/dev/stdin"]).args(SHORT);
    assert_error(&shell.output().unwrap(), &["reading /dev/stdin is not supported: there is not enough memory"]);
}

/// A training whose files may have so many blocks of 512 bytes.
fn limited(out: &Path, blocks: u64, more: &[&str]) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f \"$1\"; shift; exec \"$@\"", "sh", &blocks.to_string()]);
    shell.arg(program().get_program()).arg("train").arg(sample("sunspots_yearly.csv")).arg("--out").arg(out);
    shell.args(SHORT).args(more).output().unwrap()
}

/// As on a full disk.
#[test]
fn files_that_cannot_grow() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    assert!(train(&sample("sunspots_yearly.csv"), &whole, &SHORT).status.success());
    let size = |name: &str| std::fs::metadata(whole.join(name)).unwrap().len();
    // The model fits, a picture does not.
    let blocks = size("model.safetensors").div_ceil(512);
    let (picture, name) = match size("loss.svg") > blocks * 512 {
        true => (size("loss.svg"), "loss.svg"),
        false => (size("forecast.svg"), "forecast.svg"),
    };
    assert!(picture > blocks * 512, "{picture} {blocks}");
    let output = limited(&out, blocks, &[]);
    assert_error(&output, &[&format!("cannot write {}", out.join(name).display()), "the trained model is kept in"]);
    let model = out.join("model.safetensors");
    assert_eq!(std::fs::read(&model).unwrap(), std::fs::read(whole.join("model.safetensors")).unwrap());
    assert!(with_model("summary", &[&model], &[]).status.success());
    // Nothing fits: no part of a file is left.
    std::fs::remove_dir_all(&out).unwrap();
    let output = limited(&out, 1, &["--checkpoint-every", "0.001"]);
    let said = stderr(&output);
    assert_error(
        &output,
        &[&format!("cannot write {}", model.display()), "training goes on, but --resume could not: "],
    );
    assert!(said.contains("cannot write ") && said.contains("checkpoint.safetensors"), "{said}");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
    // The model does not fit, though an earlier one is there: that one stays.
    std::fs::write(&model, "an earlier one").unwrap();
    assert_error(&limited(&out, 1, &[]), &["cannot write"]);
    assert_eq!(std::fs::read(&model).unwrap(), b"an earlier one");
}

#[cfg(target_os = "linux")]
#[test]
fn places_that_cannot_be_written() {
    let data = sample("sunspots_yearly.csv");
    // A folder in which nobody can make a file, root neither; and one that cannot be.
    assert_error(&train(&data, Path::new("/proc"), &SHORT), &["cannot create a file beside /proc/model.safetensors"]);
    assert_error(&train(&data, &data.join("out"), &SHORT), &["cannot create", "sunspots_yearly.csv/out"]);
    // An output that is full: before training nothing is lost, after it the model is kept.
    let folder = tempfile::tempdir().unwrap();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let model = folder.path().join("model.safetensors");
    for (more, is_kept) in [(&[][..], false), (&["--quiet"], true)] {
        let mut command = program();
        command.arg("train").arg(&data).arg("--out").arg(folder.path()).args(SHORT).args(more);
        let output = command.stdout(full()).stderr(Stdio::piped()).output().unwrap();
        assert_error(&output, &["cannot write standard output"]);
        assert_eq!((model.exists(), stderr(&output).contains("the trained model is kept in")), (is_kept, is_kept));
    }
    // One that is closed, or that nobody reads: nothing is missing.
    for how in ["exec \"$0\" \"$@\" >&-", "\"$0\" \"$@\" | head -c 1"] {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", how]).arg(program().get_program()).arg("train").arg(&data).arg("--out").arg(folder.path());
        let output = shell.args(SHORT).output().unwrap();
        assert!(output.status.success(), "{how}: {} {}", stdout(&output), stderr(&output));
        for name in ["model.safetensors", "loss.svg", "forecast.svg"] {
            assert!(folder.path().join(name).exists(), "{how}: {name}");
        }
    }
}
