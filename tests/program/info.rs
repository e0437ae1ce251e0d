//! `fused-rnn info --memory`, run as a user runs it.

use std::process::{Command, Output};

fn info(flags: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_fused-rnn");
    Command::new(program).arg("info").args(flags.split_whitespace()).output().expect("the program runs")
}

#[test]
fn says_the_longest_sequences() {
    let output = info("--memory 64MiB --hidden-size 128 --input-size 16 --batch 1");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("longest sequences that train in 64 MiB: lstm"), "{text}");
    let cpu = text.lines().find(|line| line.starts_with("cpu ") && line.contains("every")).expect("a line of the CPU");
    let steps: Vec<usize> = cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [full, checkpoints, every] = steps[..] else { panic!("{cpu}") };
    assert!(full > 1000 && checkpoints > 2 * full && every < checkpoints, "{cpu}");
    assert_eq!(text.lines().any(|line| line.starts_with("cuda 9.0")), cfg!(feature = "cuda"), "{text}");

    let output = info("--memory 1KiB --hidden-size 128");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("not even one step"), "{text}");
}

#[test]
fn refuses_what_is_no_memory() {
    for given in ["0", "-1", "GiB", "1.5GiB", "16GB", "16GiBGiB", "99999999999999999999", "18446744073709551615TiB"] {
        let output = info(&format!("--memory={given}"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{given}: {text}");
        assert!(text.contains("memory") && text.contains("16GiB"), "{given}: {text}");
    }
    let output = info("--memory 1GiB --hidden-size 0");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("--hidden-size"), "{text}");
}
