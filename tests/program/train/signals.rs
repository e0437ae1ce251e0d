//! What signals do to a training, and two trainings in one folder.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::command::{ENDLESS, assert_error, is_ignored, program, sample, signal, stderr, train};

/// A training that does not end by itself, and what it says from its first epoch on.
fn begun(mut command: Command, out: &Path) -> (Child, BufReader<impl Read>) {
    command.arg("train").arg(sample("sunspots_yearly.csv")).arg("--out").arg(out).args(ENDLESS);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("epoch 1/") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "no epoch");
    }
    (child, errors)
}

#[test]
fn each_signal_keeps_the_model_and_has_its_exit_code() {
    let signals = [("-TERM", 143), ("-HUP", 129)];
    for (name, code) in signals.into_iter().filter(|(name, code)| *name != "-HUP" || !is_ignored(code - 128)) {
        let folder = tempfile::tempdir().unwrap();
        let (child, mut errors) = begun(program(), folder.path());
        signal(&child, name);
        let mut rest = String::new();
        errors.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {rest}");
        assert!(folder.path().join("model.safetensors").exists(), "{name}");
    }
}

/// As `nohup` starts it.
#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_is_ignored_at_the_start_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(program().get_program());
    let (mut child, mut errors) = begun(shell, folder.path());
    signal(&child, "-HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    signal(&child, "-TERM");
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(143), "{rest}");
}

/// While weights are drawn there is nothing to keep, and nothing to wait for.
#[test]
fn before_training_a_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program();
    command.arg("train").arg(sample("sunspots_monthly.csv")).arg("--out").arg(folder.path());
    command.args(["--units", "3000", "--epochs", "1"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(15), "{:?} {}", output.status, stderr(&output));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(!folder.path().join("model.safetensors").exists());
}

#[test]
fn a_folder_has_one_training_at_a_time_and_nothing_of_killed_ones() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".fused-rnn-abc.part");
    std::fs::write(&left, "half").unwrap();
    let (mut child, _errors) = begun(program(), folder.path());
    assert!(!left.exists());
    let yearly = sample("sunspots_yearly.csv");
    let short = ["--units", "2", "--window", "4", "--epochs", "1"];
    assert_error(&train(&yearly, folder.path(), &short), &["another training", "choose another folder"]);
    // However it ends, the folder is free.
    child.kill().unwrap();
    child.wait().unwrap();
    let next = train(&yearly, folder.path(), &short);
    assert!(next.status.success(), "{}", stderr(&next));
}

/// As shells start what scripts put into the background.
#[test]
fn an_interrupt_is_heeded_though_the_shell_ignores_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' INT; exec \"$0\" \"$@\""]).arg(program().get_program());
    let (child, mut errors) = begun(shell, folder.path());
    signal(&child, "-INT");
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130), "{rest}");
}
