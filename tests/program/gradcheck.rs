//! `fused-rnn gradcheck`, run as a user runs it.

use std::process::{Command, Output};

fn gradcheck(flags: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_fused-rnn");
    Command::new(program).arg("gradcheck").args(flags.split_whitespace()).output().expect("the program runs")
}

#[test]
fn says_what_it_found() {
    let all = "--cell lstm --seq-len 4 --batch 2 --input-size 3 --hidden-size 4 --layers 2 --direction bidirectional \
               --bias single --gate-activation hard_sigmoid:0.3 --state-activation softsign --output-activation linear \
               --reverse-state-activation tanh --dropout 0.3 --proj-size 2 --peepholes --coupled --gate-clip 1.5 \
               --cell-clip 0.8 --lengths 4,2 --resets --no-h0 --hold --batch-major --seed 5";
    let cpu = "--cell gru --reset before --lengths random --backend cpu";
    let checkpoints = "--cell gru --seq-len 7 --lengths 7,2,5 --checkpoints 3 --backend cpu";
    for (flags, tensors) in [(all, 3 + 2 * 2 * 5), (cpu, 2 + 4), (checkpoints, 2 + 4)] {
        let output = gradcheck(flags);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_eq!(text.lines().count(), 1 + tensors + 1, "{text}");
        assert!(text.lines().last().unwrap().starts_with("PASS"), "{text}");
    }
    let output = gradcheck("--tolerance 1e-300");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().last().unwrap().starts_with("FAIL") && text.contains("at element"), "{text}");
}

#[test]
fn refuses_what_cannot_be() {
    for (flags, message) in [
        ("--cell gru --peepholes", "peepholes"),
        ("--hidden-size 0", "option --hidden-size: expected 1 or more"),
        ("--hidden-size 18446744073709551615", "overflow"),
        ("--layers 18446744073709551615", "overflow"),
        ("--hidden-size 100000", "sizes"),
        ("--lengths 5,3", "lengths"),
        ("--lengths 5,3,0", "lengths[2]"),
        ("--lengths 5,,3", "not a length"),
        ("--gate-clip nan", "--gate-clip"),
        ("--dropout 1.5", "dropout"),
        ("--gate-activation tanh:1", "at most 0 constants"),
        ("--direction sideways", "possible values"),
        ("--tolerance 0", "tolerance"),
    ] {
        let output = gradcheck(flags);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags}: {text}");
        assert!(text.contains(message), "{flags}: {text}");
    }
}
