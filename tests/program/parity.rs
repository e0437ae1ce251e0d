//! `fused-rnn parity`, run as a user runs it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::common::cases::{Draft, fixture, fixtures, folder};

fn parity(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fused-rnn")).arg("parity").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A good file, a wrong one, a damaged one and one that is not there.
fn mixed(folder: &Path) -> Vec<String> {
    let mut wrong = Draft::of(&fixture("torch_gru"));
    wrong.map("hn", |i, value| if i == 2 { value + 0.5 } else { value });
    std::fs::write(folder.join("wrong.safetensors"), wrong.bytes()).unwrap();
    std::fs::write(folder.join("damaged.safetensors"), b"no such thing").unwrap();
    let good = path(&fixture("torch_gru")).to_owned();
    let here = |name: &str| path(&folder.join(name)).to_owned();
    vec![good.clone(), here("wrong.safetensors"), here("damaged.safetensors"), here("absent.safetensors"), good]
}

#[test]
fn all_fixtures_pass() {
    let files = fixtures();
    let mut args: Vec<_> = files.iter().map(|file| path(file)).collect();
    for dtype in ["f64", "f32"] {
        args.extend(["--dtype", dtype]);
        for backend in ["reference", "cpu"] {
            args.extend(["--backend", backend]);
            let output = parity(&args);
            let lines = text(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{lines}");
            assert_eq!(lines.lines().count(), files.len() + 1);
            assert_eq!(lines.lines().last(), Some(&*format!("{} passed, 0 failed", files.len())));
            args.truncate(args.len() - 2);
        }
        args.truncate(files.len());
    }
    assert_eq!(parity(&args).status.code(), Some(0));
}

/// Each instruction set of this machine, by the variable that chooses it; one that no machine has is refused with those that this one has.
#[test]
fn all_fixtures_pass_with_every_instruction_set() {
    let files = fixtures();
    let run = |set: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_fused-rnn"));
        program.args(["parity", "--dtype", "f32", "--backend", "cpu"]).args(&files);
        program.env("FUSED_RNN_INSTRUCTION_SET", set).output().unwrap()
    };
    let refused = run("avx1024");
    assert_ne!(refused.status.code(), Some(0));
    let all = text(&refused.stdout) + &text(&refused.stderr);
    let message = all.lines().find(|line| line.contains("FUSED_RNN_INSTRUCTION_SET")).expect("the variable is named");
    let message = message.split("FUSED_RNN_INSTRUCTION_SET").nth(1).unwrap();
    assert!(message.contains("avx1024"), "{message}");
    let mut sets = vec![];
    for set in ["amx", "avx512", "avx2", "portable"].into_iter().filter(|set| message.contains(set)) {
        let output = run(set);
        assert_eq!(output.status.code(), Some(0), "{set}: {}", text(&output.stdout));
        sets.push(set);
    }
    assert_eq!(sets.last(), Some(&"portable"));
}

#[test]
fn one_line_a_file_and_the_counts() {
    let folder = tempfile::tempdir().unwrap();
    let files = mixed(folder.path());
    let args: Vec<_> = files.iter().map(String::as_str).collect();
    let output = parity(&args);
    assert_eq!(output.status.code(), Some(1));
    let lines = text(&output.stdout);
    let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    for good in [&lines[0], &lines[4]] {
        assert_eq!(good[..2], ["torch_gru", "PASS"]);
        assert!(good[2].parse::<f64>().unwrap() < 1e-10);
    }
    assert_eq!(lines[1][..2], ["wrong", "FAIL"]);
    assert!(lines[1][2].parse::<f64>().unwrap() > 0.1);
    assert_eq!(lines[1][3], "hn");
    assert_eq!(lines[2][..3], ["damaged", "FAIL", "error:"]);
    assert_eq!(lines[3][..3], ["absent", "FAIL", "error:"]);
    assert_eq!(lines[5], ["2", "passed,", "3", "failed"]);
}

#[test]
fn json_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let files = mixed(folder.path());
    let mut args: Vec<_> = files.iter().map(String::as_str).collect();
    args.push("--json");
    let output = parity(&args);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0]["name"], "torch_gru");
    assert_eq!(lines[0]["file"], files[0]);
    assert_eq!(lines[0]["result"], "PASS");
    assert_eq!(lines[0]["tolerance"], 1e-10);
    assert_eq!(lines[0]["error"], Value::Null);
    assert!(lines[0]["worst_relative_error"].as_f64().unwrap() < 1e-10);
    assert_eq!(lines[1]["result"], "FAIL");
    assert_eq!(lines[1]["worst_tensor"], "hn");
    for line in &lines[2..4] {
        assert_eq!(line["result"], "FAIL");
        assert_eq!(line["worst_relative_error"], Value::Null);
        assert!(line["error"].as_str().unwrap().contains(line["file"].as_str().unwrap()));
    }
    assert_eq!(lines[5], json!({"passed": 2, "failed": 3}));
}

#[test]
fn tolerance_overrides() {
    let folder = tempfile::tempdir().unwrap();
    let files = mixed(folder.path());
    assert_eq!(parity(&[&files[1], "--tolerance", "10"]).status.code(), Some(0));
    assert_eq!(parity(&[&files[0], "--tolerance", "0"]).status.code(), Some(1));
    assert_eq!(parity(&[&files[0], "--tolerance", "1e-9"]).status.code(), Some(0));
}

#[test]
fn wrong_usage_is_an_error() {
    let file = fixture("torch_gru");
    let file = path(&file);
    for (args, message) in [
        (vec![], "FILE"),
        (vec![file, "--tolerance", "-1"], "tolerance"),
        (vec![file, "--tolerance", "nan"], "tolerance"),
        (vec![file, "--tolerance", "inf"], "tolerance"),
        (vec![file, "--tolerance", "x"], "tolerance"),
        (vec![file, "--dtype", "f16"], "--dtype f16 on the host is not supported"),
        (vec![file, "--dtype", "int8"], "dtype"),
        (vec![file, "--backend", "tpu"], "backend"),
        (vec![file, "--backend", "cuda", "--family", "huge"], "family"),
        (vec![file, "--backend", "cpu", "--family", "grid"], "family"),
        (vec![file, "--backend", "cpu", "--schedule", "1"], "schedule"),
    ] {
        let output = parity(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(message), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

/// A name from a foreign file cannot break the line or reach the terminal.
#[test]
fn control_characters_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut draft = Draft::of(&fixture("torch_gru"));
    draft.replace("a\nPASS\u{1b}[2J", &[1], &[0.0]);
    let file = folder.path().join("odd.safetensors");
    std::fs::write(&file, draft.bytes()).unwrap();
    let output = parity(&[path(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert!(!text(&output.stdout).contains('\u{1b}'));
}

#[test]
fn folders_are_failed_lines() {
    let output = parity(&[path(&folder())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("not a regular file"), "{}", text(&output.stdout));
}

/// A reader that goes away, such as `head`, is no reason to panic.
#[test]
fn a_closed_pipe_is_an_error() {
    let files = fixtures();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fused-rnn"))
        .arg("parity")
        .args(&files)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
}
