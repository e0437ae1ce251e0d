//! `fused-rnn bench`, run as a user runs it. What is measured is never compared with anything: only that it is there.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Short timings of a small operator, but for what a test gives.
const QUICK: [[&str; 2]; 4] = [["--seconds", "0.001"], ["--rounds", "2"], ["--threads", "2"], ["--hidden-size", "3"]];

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fused-rnn"));
    command.arg("bench").args(args);
    for option in QUICK.iter().filter(|option| !args.contains(&option[0])) {
        command.args(option);
    }
    command.stdin(Stdio::null()).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The JSON lines of a run that ended with this code.
fn lines(output: &Output, code: i32) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} of {line}"))
}

#[test]
fn a_sweep_measures_every_point() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (csv, markdown, plots) = (path("sweep.csv"), path("sweep.md"), path("plots"));
    let args = [
        &["--cell", "lstm,gru", "--seq-len", "2..4:x2", "--json"][..],
        &["--pass", "infer,fwd,fwd+bwd,train-step,train-step-adam,stream"],
        &["--csv", &csv, "--markdown", &markdown, "--plots", &plots],
    ];
    let found = lines(&bench(&args.concat()), 0);
    assert_eq!(found.len(), 2 * 2 * 6);
    for line in &found {
        for name in
            ["us_per_step", "us_per_step_p10", "us_per_step_p90", "us_per_call_best", "gflops", "intensity", "samples"]
        {
            assert!(number(line, name).is_finite() && number(line, name) > 0.0, "{name} of {line}");
        }
        for name in ["peak_gflops", "peak_gbytes", "compute_share", "memory_share", "memory_bytes", "workspace_bytes"] {
            assert!(number(line, name).is_finite() && number(line, name) > 0.0, "{name} of {line}");
        }
        // Where both threads run at once.
        assert!(line.get("round_trip_ns").is_none_or(|trip| trip.as_f64().is_some_and(|trip| trip > 1.0)), "{line}");
        let pass = line["pass"].as_str().unwrap();
        assert_eq!(number(line, "reserve_bytes") > 0.0, !["infer", "stream"].contains(&pass), "{line}");
        let is_split = line.get("us_per_step_without_input").is_some();
        assert_eq!(is_split, ["infer", "fwd", "fwd+bwd"].contains(&pass), "{line}");
        assert!(line["why"].as_str().unwrap().contains("time loop on 1 thread"), "{line}");
        assert!(line["machine"].as_str().unwrap().contains(concat!("fused-rnn ", env!("CARGO_PKG_VERSION"))), "{line}");
    }
    // All the operations of a pass: two gates' rows, or three, of a 4 to 3 layer for 3 sequences.
    let infer = found.iter().find(|l| l["cell"] == "lstm" && l["seq_len"] == 4 && l["pass"] == "infer").unwrap();
    let operations = number(infer, "gflops") * number(infer, "us_per_call") * 1e3;
    assert!((operations - f64::from(2 * 4 * 3 * (4 * 3) * (4 + 3))).abs() < 1e-6 * operations, "{operations}");

    let mut reader = csv::Reader::from_path(&csv).expect("a CSV file");
    let head: Vec<_> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
    for name in [
        "cell",
        "seq_len",
        "threads",
        "pass",
        "us_per_step",
        "compute_share",
        "reserve_bytes",
        "plan",
        "why",
        "machine",
        "error",
    ] {
        assert!(head.iter().any(|column| column == name), "{name} is no column of {head:?}");
    }
    let records: Vec<_> = reader.records().collect::<Result<_, _>>().expect("lines of as many columns");
    assert_eq!(records.len(), found.len());
    let table = std::fs::read_to_string(&markdown).expect("a table");
    assert_eq!(
        table.lines().filter(|line| line.starts_with("| LSTM ") || line.starts_with("| GRU ")).count(),
        found.len()
    );

    let pictures: Vec<_> =
        std::fs::read_dir(&plots).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    // A picture along T for each cell and pass, and the roofline.
    assert_eq!(pictures.len(), 2 * 6 + 1, "{pictures:?}");
    for picture in &pictures {
        let svg = std::fs::read_to_string(picture).expect("a picture");
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        assert_eq!(document.root_element().tag_name().name(), "svg", "{}", picture.display());
        let says = |part: &str| document.descendants().any(|node| node.text().is_some_and(|text| text.contains(part)));
        assert!(says("fused-rnn") && (says("time a step [µs]") || says("GFLOP/s")), "{}", picture.display());
    }
}

#[test]
fn a_table_for_people() {
    let output = bench(&[
        "--layers",
        "2",
        "--direction",
        "bidirectional",
        "--lengths",
        "5/1/3",
        "--batch",
        "3",
        "--dtype",
        "f64",
    ]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}{}", text(&output.stderr));
    let said = [
        "ceilings on 2 threads, f64",
        "µs a step",
        "LSTM 5×3, 4→3, 2 layers, bidirectional, lengths given",
        "fwd+bwd",
        "plan: cpu",
    ];
    for part in said {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    // Nothing but a terminal sees the progress line.
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_file_of_points() {
    let folder = tempfile::tempdir().expect("a folder");
    let grid = folder.path().join("grid.csv").display().to_string();
    std::fs::write(&grid, "seq-len,hidden-size,pass\n# two points\n\"3,4\",5,infer\n# the pass of the options\n6,,\n")
        .unwrap();
    let found = lines(&bench(&["--grid", &grid, "--hidden-size", "7", "--pass", "fwd", "--cell", "rnn", "--json"]), 0);
    let sizes = |line: &Value| {
        (line["seq_len"].as_u64(), line["hidden_size"].as_u64(), line["pass"].as_str().map(str::to_owned))
    };
    assert_eq!(
        found.iter().map(sizes).collect::<Vec<_>>(),
        [(3, 5, "infer"), (4, 5, "infer"), (6, 7, "fwd")].map(|(t, h, pass)| (Some(t), Some(h), Some(pass.to_owned())))
    );
    // The smallest points of the built-in one.
    let found = lines(&bench(&["--grid", "builtin", "--only", "10×1, 1→50 infer", "--json"]), 0);
    assert_eq!(found.iter().map(|line| line["cell"].as_str().unwrap()).collect::<Vec<_>>(), ["lstm", "gru", "rnn"]);
}

#[test]
fn what_is_mistyped_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let grid = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    };
    let (units, number, empty) = (grid("a", "units\n3\n"), grid("b", "batch\nmany\n"), grid("c", "batch\n"));
    for (option, value, parts) in [
        ("--cell", "lsmt", &["option --cell", "gru", "lsmt"][..]),
        ("--seq-len", "16..64", &["option --seq-len", "16..4096:x2", "\"16..64\""]),
        ("--hidden-size", "8,", &["option --hidden-size", "16..64:+16"]),
        ("--direction", "both", &["option --direction", "bidirectional", "both"]),
        ("--dtype", "f23", &["option --dtype", "bf16", "f23"]),
        ("--backend", "gpu", &["option --backend", "cuda", "gpu"]),
        ("--device", "x", &["option --device", "numbers of GPUs", "x"]),
        ("--threads", "70000", &["option --threads", "65535", "70000"]),
        ("--pass", "train", &["option --pass", "train-step", "\"train\""]),
        ("--lengths", "3/0/2", &["option --lengths", "random", "3/0/2"]),
        ("--peers", "pytorch", &["option --peers", "torch, onnxruntime", "pytorch"]),
        ("--peers", "torch,torch", &["option --peers", "once"]),
        ("--rounds", "0", &["option --rounds", "1..=1000"]),
        ("--seconds", "0", &["option --seconds", "above 0"]),
        ("--tolerance", "nan", &["option --tolerance", "NaN"]),
        ("--only", "nothing like this", &["option --only", "nothing like this"]),
        ("--grid", "no such file", &["cannot read no such file"]),
        ("--grid", &units, &["line 1", "units", "hidden-size"]),
        ("--grid", &number, &["line 2", "option batch", "many"]),
        ("--grid", &empty, &["no line"]),
        ("--batch", "1..100000:+1", &["option sweep", "100000"]),
    ] {
        let output = bench(&[option, value]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option} {value}: {error}");
        for part in parts {
            assert!(error.contains(part), "{option} {value}: {part:?} is not in {error}");
        }
    }
}

#[test]
fn a_point_that_cannot_be_stops_no_other() {
    for (args, part) in [
        (&["--hidden-size", "1000000000000,4"][..], "use smaller sizes"),
        (&["--hidden-size", "18446744073709551615,4"], "overflow"),
        (&["--dtype", "bf16,f32"], "dtype bf16 on the cpu backend"),
        (&["--heads", "5,3"], "heads"),
        (&["--lengths", "4/4,full", "--batch", "3"], "lengths"),
        (&["--lengths", "9/1/1,full", "--batch", "3"], "lengths[0]"),
        (&["--direction", "reverse,forward", "--pass", "stream"], "direction forward"),
        (&["--cell", "slstm,lstm", "--pass", "train-step"], "fwd+bwd"),
    ] {
        let pass: &[&str] = if args.contains(&"--pass") { &["--json"] } else { &["--json", "--pass", "infer"] };
        let found = lines(&bench(&[args, pass].concat()), 1);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0]["error"].as_str().is_some_and(|error| error.contains(part)), "{part}: {found:?}");
        assert!(number(&found[1], "us_per_step") > 0.0);
    }
}

#[test]
fn lines_of_arguments() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fused-rnn"))
        .args(["bench", "--lines", "--json", "--pass", "infer", "--seconds", "0.001", "--rounds", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = "--json --cell gru --pass fwd --seconds 0.001\n--cell\n--json --batch 0\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let found = self::lines(&child.wait_with_output().unwrap(), 1);
    assert_eq!((found.len(), &found[1]["cell"], &found[1]["pass"]), (4, &"gru".into(), &"fwd".into()));
    assert!(found[2]["error"].as_str().unwrap().contains("--cell"), "{found:?}");
    assert!(found[3]["error"].as_str().unwrap().contains("option batch"), "{found:?}");
}

#[test]
fn peers_that_are_not_there_are_named() {
    let programs = ["--python", "/no/such/python", "--rust-peers", "/no/such/peers"];
    let output = bench(&[&["--peers", "torch,candle", "--pass", "infer", "--json"][..], &programs].concat());
    let error = text(&output.stderr);
    assert_eq!(lines(&output, 1).len(), 1, "ours is measured all the same");
    assert!(error.contains("torch is not measured: /no/such/python does not start"), "{error}");
    assert!(error.contains("name an interpreter by --python"), "{error}");
    assert!(error.contains("candle is not measured: /no/such/peers does not start"), "{error}");
    assert!(
        error.contains("build it by `cargo build --release --locked --manifest-path benches/peers/rust/Cargo.toml`"),
        "{error}"
    );
}

/// Peers that are shell scripts: what follows the first line is done for every request, `$folder` of a point to be computed.
#[cfg(unix)]
mod stand_ins {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that takes the place of Python.
    fn script(folder: &Path, first: &str, prepare: &str, time: &str) -> String {
        let path = folder.join("python");
        let text = format!(
            "#!/bin/sh\necho '{first}'\nwhile read -r line; do\n  folder=$(printf '%s' \"$line\" | sed -n 's/.*\"folder\":\"\\([^\"]*\\)\".*/\\1/p')\n  \
             case \"$line\" in\n  *'\"prepare\"'*) {prepare} ;;\n  *) {time} ;;\n  esac\ndone\n"
        );
        let mut file = std::fs::File::create(&path).expect("a script");
        file.write_all(text.as_bytes()).expect("written");
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("executable");
        path.display().to_string()
    }

    const READY: &str = r#"{"peer":"torch","version":"0.1"}"#;
    /// y of 5 steps of 3 sequences of 3 units, all zero.
    const ZEROS: &str = r#"head -c 180 /dev/zero > "$folder/y.out"; echo '{"outputs":["y"]}'"#;
    const TIMES: &str = r#"echo '{"us":[500.0,300.0,400.0]}'"#;

    /// The line of the only point, and standard error.
    fn run(first: &str, prepare: &str, time: &str, args: &[&str], code: i32) -> (Value, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let python = script(folder.path(), first, prepare, time);
        let args = [&["--peers", "torch", "--python", &python, "--pass", "infer", "--json"], args].concat();
        let mut output = bench(&args);
        // Another test that starts a program at this moment holds the script open for a while.
        for _ in 0..20 {
            if !text(&output.stderr).contains("Text file busy") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            output = bench(&args);
        }
        let mut found = lines(&output, code);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(number(&found[0], "us_per_step") > 0.0, "ours is measured whatever a peer does: {found:?}");
        (found.remove(0), text(&output.stderr))
    }

    #[test]
    fn a_wrong_result_is_a_mismatch() {
        let (line, _) = run(READY, ZEROS, TIMES, &[], 1);
        let note = line["torch_note"].as_str().unwrap();
        assert!(note.starts_with("mismatch: relative error 1.00e0 in y") && note.contains("tolerance 1e-3"), "{note}");
        assert!(
            (number(&line, "torch_relative_error") - 1.0).abs() < 1e-9 && line.get("torch_ratio").is_none(),
            "{line}"
        );
    }

    #[test]
    fn a_result_within_the_tolerance_is_timed() {
        let (line, _) = run(READY, ZEROS, TIMES, &["--tolerance", "2"], 0);
        assert_eq!(number(&line, "torch_us_per_step"), 80.0);
        // Ours of each round beside the peer's of the same round.
        assert!(
            number(&line, "torch_ratio") > 0.0 && line["machine"].as_str().unwrap().contains("torch 0.1"),
            "{line}"
        );
    }

    #[test]
    fn what_a_peer_does_wrong_is_shown() {
        for (prepare, time, part) in [
            ("exit 3", TIMES, "its helper ended with"),
            ("echo nonsense", TIMES, "instead of a JSON object"),
            ("echo '{}'", TIMES, "instead of its outputs"),
            (r#"echo '{"error":"out of memory"}'"#, TIMES, "out of memory"),
            (r#"echo '{"outputs":["y"]}'"#, TIMES, "y.out"),
            (r#"head -c 8 /dev/zero > "$folder/y.out"; echo '{"outputs":["y"]}'"#, TIMES, "expected 45 elements"),
            (r#"echo '{"outputs":["z"]}'"#, TIMES, "one of y, hn, cn"),
            (ZEROS, r#"echo '{"us":[]}'"#, "not numbers above zero"),
            (ZEROS, r#"echo '{"us":[-1.0]}'"#, "not numbers above zero"),
        ] {
            let (line, _) = run(READY, prepare, time, &["--tolerance", "2"], 1);
            let note = line["torch_note"].as_str().unwrap_or_default();
            assert!(note.contains(part), "{prepare}: {part:?} is not in {note:?}");
        }
        let unsupported = r#"echo '{"unsupported":"only Tuesdays"}'"#;
        let (line, _) = run(READY, unsupported, TIMES, &[], 0);
        assert_eq!(line["torch_note"], "not supported: only Tuesdays");
    }

    #[test]
    fn a_missing_library_is_named_with_its_command() {
        let (line, error) = run(r#"{"missing":"torch"}"#, ZEROS, TIMES, &[], 1);
        assert!(line.get("torch_note").is_none(), "{line}");
        assert!(error.contains("torch is not measured") && error.contains("has no torch; install it by"), "{error}");
        assert!(error.contains("-m pip install torch"), "{error}");
    }
}

/// More threads than the machine runs, or starts: ceilings are those of the threads it runs, and a small operator needs one.
#[test]
fn more_threads_than_there_are() {
    let found = lines(&bench(&["--threads", "65535", "--seq-len", "2", "--pass", "infer", "--whole", "--json"]), 0);
    assert!(number(&found[0], "peak_gflops") > 0.0 && number(&found[0], "us_per_step") > 0.0);
}

/// Lists of lengths, which the names of pictures do not tell: a picture for each.
#[test]
fn pictures_do_not_replace_one_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let plots = folder.path().display().to_string();
    let sizes = ["--seq-len", "4", "--batch", "2", "--input-size", "2..4:x2", "--pass", "infer", "--whole", "--json"];
    let found = lines(&bench(&[&sizes[..], &["--lengths", "4/3,4/1", "--plots", &plots]].concat()), 0);
    assert_eq!(found.len(), 4);
    let files = std::fs::read_dir(folder.path()).expect("a folder").count();
    // Two by input size, a roofline.
    assert_eq!(files, 3);
}
