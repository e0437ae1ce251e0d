//! The program's commands, and what they print.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fused-rnn"))
}

pub fn train(data: &Path, out: &Path, more: &[&str]) -> Output {
    program().arg("train").arg(data).arg("--out").arg(out).args(more).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code 2 and one line that begins with `error:` and holds every part.
#[track_caller]
pub fn assert_error(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().filter(|l| l.starts_with("error: ")).count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

pub fn csv(folder: &TempDir, text: &[u8]) -> PathBuf {
    let path = folder.path().join("data.csv");
    std::fs::write(&path, text).unwrap();
    path
}

/// The RMSE printed in the first row that starts with `name`: the first of the numbers at its end.
pub fn rmse(text: &str, name: &str) -> f64 {
    let row = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no row {name} in {text}"));
    let numbers =
        row.split_whitespace().rev().map_while(|word| if word == "-" { Some(0.0) } else { word.parse().ok() });
    numbers.last().unwrap()
}

/// Runs a command on a trained model.
pub fn with_model(command: &str, args: &[&Path], more: &[&str]) -> Output {
    program().arg(command).args(args).args(more).output().unwrap()
}

/// More epochs than anyone would wait for: an answer at all means that training had not begun.
pub const ENDLESS: [&str; 8] = ["--epochs", "1000000000", "--patience", "1000000000", "--units", "8", "--window", "12"];

#[cfg(unix)]
pub fn interrupt(child: &std::process::Child) {
    signal(child, "-INT");
}

#[cfg(unix)]
pub fn signal(child: &std::process::Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Whether these tests, and what they start, never see a signal: a hangup under `nohup`, Ctrl-C in the background of a script. Says so.
#[cfg(unix)]
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim).unwrap_or("0");
    let is_ignored = u64::from_str_radix(ignored, 16).unwrap() >> (signal - 1) & 1 == 1 || !cfg!(target_os = "linux");
    if is_ignored {
        println!("SKIPPED: what signal {signal} does, for here it is ignored");
    }
    is_ignored
}
