//! The program given damaged files and absurd numbers: an answer on one line and an exit code, no panic, and no more memory than
//! the data needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::Rng;
use crate::common::damage::{damaged, with_damaged_meaning, write_anew};

/// Runs the program with the address space bounded, where the system can do that, so that absurd sizes in a file become visible
/// when they are allocated.
fn program(args: &[&str]) -> Output {
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 1500000 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_fused-rnn")]);
        shell
    } else {
        Command::new(env!("CARGO_BIN_EXE_fused-rnn"))
    };
    command.args(args).stdin(Stdio::null()).output().expect("the program starts")
}

/// Checks that the program ended by itself with one of the exit codes, and said why where that is not 0.
fn answered(what: &str, output: &Output, codes: &[i32]) -> i32 {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code = output.status.code().unwrap_or_else(|| panic!("{what}: ended by a signal, {}: {text}", output.status));
    assert!(codes.contains(&code), "{what}: exit code {code}: {text}");
    assert!(!text.contains("panicked at") && !text.contains("memory allocation"), "{what}: {text}");
    assert!(code == 0 || !text.trim().is_empty(), "{what}: exit code {code} without a word");
    code
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("listed").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The small data set, and a model trained on it for one epoch.
fn trained(folder: &Path) -> (String, String) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/sunspots_yearly.csv").display().to_string();
    let out = folder.join("out").display().to_string();
    let args = ["train", &data, "--units", "3", "--window", "5", "--epochs", "1", "--quiet", "--out", &out];
    answered("train", &program(&args), &[0]);
    (data, folder.join("out/model.safetensors").display().to_string())
}

#[test]
fn damaged_cases_fail_one_by_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixtures = fixtures();
    for round in 0..6 {
        let mut args = vec!["parity".to_owned()];
        for seed in 0..25 {
            let rng = &mut Rng::new(round * 1000 + seed);
            let original = std::fs::read(&fixtures[rng.below(fixtures.len())]).expect("read");
            let bytes =
                if seed % 2 == 0 { damaged(&original, rng) } else { with_damaged_meaning(&original, "case", rng) };
            let path = folder.path().join(format!("{round}-{seed}.safetensors"));
            std::fs::write(&path, bytes).expect("written");
            args.push(path.display().to_string());
        }
        let output = program(&args.iter().map(String::as_str).collect::<Vec<_>>());
        answered("parity", &output, &[0, 1]);
        // One line a file, and the counts.
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        assert_eq!(lines, 26, "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn damaged_models_are_refused_or_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, model) = trained(folder.path());
    let original = std::fs::read(&model).expect("read");
    let out = folder.path().join("predicted").display().to_string();
    let damaged_model = folder.path().join("damaged.safetensors").display().to_string();
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let bytes =
            if seed % 3 == 0 { damaged(&original, rng) } else { with_damaged_meaning(&original, "fused-rnn", rng) };
        write_anew(&damaged_model, &bytes);
        let output = program(&["predict", &damaged_model, &data, "--horizon", "3", "--out", &out]);
        answered(&format!("predict with the damage of seed {seed}"), &output, &[0, 2]);
        let args: &[&str] = match seed % 3 {
            0 => &["evaluate", &damaged_model, &data],
            1 => &["summary", &damaged_model],
            _ => &["plot", &damaged_model, "--out", &out],
        };
        answered(&format!("{} with the damage of seed {seed}", args[0]), &program(args), &[0, 2]);
    }
}

/// Sequences of two classes, and a model trained on them for one epoch.
fn trained_on_sequences(folder: &Path) -> (String, String) {
    let series: String =
        (0..24).map(|i| format!("{i},{}{}:{}\n", i % 5, ",1".repeat(i % 3), ["a", "b"][i % 2])).collect();
    let data = folder.join("sequences.ts").display().to_string();
    let head = "@problemName x\n@timeStamps false\n@univariate true\n@classLabel true a b\n@data\n";
    std::fs::write(&data, head.to_owned() + &series).expect("written");
    let out = folder.join("classes").display().to_string();
    let args = ["train", &data, "--units", "3", "--epochs", "1", "--quiet", "--out", &out];
    answered("train on sequences", &program(&args), &[0]);
    (data, folder.join("classes/model.safetensors").display().to_string())
}

#[test]
fn damaged_models_of_sequences_are_refused_or_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, model) = trained_on_sequences(folder.path());
    let original = std::fs::read(&model).expect("read");
    let out = folder.path().join("predicted").display().to_string();
    let damaged_model = folder.path().join("damaged.safetensors").display().to_string();
    let mut codes = Vec::new();
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let bytes =
            if seed % 3 == 0 { damaged(&original, rng) } else { with_damaged_meaning(&original, "fused-rnn", rng) };
        write_anew(&damaged_model, &bytes);
        let args: &[&str] = match seed % 4 {
            0 | 1 => &["predict", &damaged_model, &data, "--out", &out],
            2 => &["evaluate", &damaged_model, &data],
            _ => &["summary", &damaged_model],
        };
        codes.push(answered(&format!("{} with the damage of seed {seed}", args[0]), &program(args), &[0, 2]));
    }
    assert!(codes.contains(&2), "no damage was seen");
}

#[test]
fn damaged_sequences_are_refused_or_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, model) = trained_on_sequences(folder.path());
    let original = std::fs::read(&data).expect("read");
    let damaged_data = folder.path().join("damaged.ts").display().to_string();
    let out = folder.path().join("out").display().to_string();
    for seed in 0..40 {
        write_anew(&damaged_data, &damaged(&original, &mut Rng::new(seed)));
        let args: &[&str] = match seed % 2 {
            0 => &["train", &damaged_data, "--units", "2", "--epochs", "1", "--quiet", "--out", &out],
            _ => &["evaluate", &model, &damaged_data],
        };
        answered(&format!("{} with the damage of seed {seed}", args[0]), &program(args), &[0, 2]);
    }
    for number in ["0", "-1", "18446744073709551615", "9223372036854775807", "1000000000000", "x"] {
        for option in ["--length", "--layers"] {
            let args = ["train", &data, "--epochs", "1", "--quiet", "--out", &out, option, number];
            answered(&format!("train {option} {number}"), &program(&args), &[2]);
        }
    }
}

/// Rows of two columns with classes, and a model trained on their windows for one epoch.
fn trained_on_rows(folder: &Path) -> (String, String) {
    let text: String = (0..60).map(|i| format!("{},{},{}\n", i % 5, i * i % 7, ["p", "q", "r"][i / 5 % 3])).collect();
    let data = folder.join("rows.csv").display().to_string();
    std::fs::write(&data, "a,b,class\n".to_owned() + &text).expect("written");
    let out = folder.join("rows").display().to_string();
    let args = [&["train", &data, "--out", &out, "--epochs", "1", "--units", "3"], &ROWS[..]].concat();
    answered("train on rows", &program(&args), &[0]);
    (data, folder.join("rows/model.safetensors").display().to_string())
}

const ROWS: [&str; 7] = ["--task", "classification", "--target", "class", "--window", "4", "--quiet"];

#[test]
fn damaged_models_of_rows_are_refused_or_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, model) = trained_on_rows(folder.path());
    let original = std::fs::read(&model).expect("read");
    let out = folder.path().join("predicted").display().to_string();
    let damaged_model = folder.path().join("damaged.safetensors").display().to_string();
    let mut codes = Vec::new();
    for seed in 0..60 {
        let rng = &mut Rng::new(seed);
        let bytes =
            if seed % 3 == 0 { damaged(&original, rng) } else { with_damaged_meaning(&original, "fused-rnn", rng) };
        write_anew(&damaged_model, &bytes);
        let args: &[&str] = match seed % 4 {
            0 | 1 => &["predict", &damaged_model, &data, "--out", &out],
            2 => &["evaluate", &damaged_model, &data],
            _ => &["summary", &damaged_model],
        };
        codes.push(answered(&format!("{} with the damage of seed {seed}", args[0]), &program(args), &[0, 2]));
    }
    assert!(codes.contains(&2), "no damage was seen");
}

#[test]
fn damaged_rows_are_refused_or_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, model) = trained_on_rows(folder.path());
    let original = std::fs::read(&data).expect("read");
    let damaged_data = folder.path().join("damaged.csv").display().to_string();
    let out = folder.path().join("out").display().to_string();
    let predicted = folder.path().join("predicted").display().to_string();
    for seed in 0..60 {
        write_anew(&damaged_data, &damaged(&original, &mut Rng::new(seed)));
        let train = [&["train", &damaged_data, "--units", "2", "--epochs", "1", "--out", &out], &ROWS[..]].concat();
        let args: &[&str] = match seed % 3 {
            0 => &train,
            1 => &["evaluate", &model, &damaged_data],
            _ => &["predict", &model, &damaged_data, "--gaps", "drop", "--out", &predicted],
        };
        answered(&format!("{} with the damage of seed {seed}", args[0]), &program(args), &[0, 2]);
    }
    // Windows that no memory holds: half of so many rows, in as many windows.
    let many = "1,1,p\n2,2,q\n".repeat(30_000);
    std::fs::write(&damaged_data, "a,b,class\n".to_owned() + &many).expect("written");
    let args = ["train", &damaged_data, "--task", "classification", "--target", "class", "--window", "20000"];
    let more = ["--test-fraction", "0", "--validation-fraction", "0", "--epochs", "1", "--out", &out];
    let output = program(&[&args[..], &more].concat());
    if cfg!(target_os = "linux") {
        answered("windows that no memory holds", &output, &[2]);
    }
    // Names that would break a line of a table.
    let odd = "1,1,\"line\nbreak\"\n2,2,\"\u{1b}[31m<&>\"\n".repeat(30);
    std::fs::write(&damaged_data, "a,b,class\n".to_owned() + &odd).expect("written");
    let args = [&["train", &damaged_data, "--units", "2", "--epochs", "1", "--out", &out], &ROWS[..6]].concat();
    let output = program(&args);
    answered("odd names of classes", &output, &[0]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("line break") && !text.contains('\u{1b}'), "{text}");
    let picture = std::fs::read_to_string(folder.path().join("out/confusion.svg")).expect("a picture");
    assert!(!picture.contains('\u{1b}') && !picture.contains("<&>"), "{picture}");
}

#[test]
fn damaged_data_is_refused_or_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out").display().to_string();
    let file = folder.path().join("data.csv").display().to_string();
    let good: String = (0..60).map(|i| format!("{},{}\n", 1900 + i, i % 7)).collect();
    let texts = [
        ("empty", String::new()),
        ("a header only", "year,value\n".to_owned()),
        ("ragged", good.clone() + "1,2,3\n"),
        ("text", good.replace(",3\n", ",three\n")),
        ("infinite", good.replace(",3\n", ",inf\n")),
        ("huge", good.replace(",3\n", ",1e308\n").replace(",4\n", ",-1e308\n")),
        ("too short", "1,2\n3,4\n".to_owned()),
        ("constant", "1\n".repeat(60)),
        ("all gaps", "a,b\n".to_owned() + &"NA,\n".repeat(60)),
        ("one long line", "1,".repeat(10_000)),
        ("an open quote", "\"".to_owned() + &good),
    ];
    for (what, text) in texts {
        std::fs::write(&file, text).expect("written");
        let args = ["train", &file, "--units", "2", "--window", "5", "--epochs", "1", "--quiet", "--out", &out];
        let code = answered(what, &program(&args), &[0, 2]);
        let usable = ["constant", "huge", "text"].contains(&what);
        assert!(code == 2 || usable, "{what} is accepted");
    }
}

/// Windows of a series are larger than it, and linear forecasts of thousands of columns take longer than anyone waits.
#[test]
fn work_is_bounded_by_the_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) =
        (folder.path().join("data.csv").display().to_string(), folder.path().join("out").display().to_string());
    std::fs::write(&file, (0..60_000).map(|i| format!("{}\n", i % 100)).collect::<String>()).expect("written");
    if cfg!(target_os = "linux") {
        let args =
            ["train", &file, "--window", "15000", "--units", "2", "--epochs", "1", "--learn", "values", "--out", &out];
        answered("windows that no memory holds", &program(&args), &[2]);
    }
    let columns = 1500;
    let row = |i: usize| (0..columns).map(|j| (i * j % 7).to_string()).collect::<Vec<_>>().join(",") + "\n";
    let header = (0..columns).map(|j| format!("c{j}")).collect::<Vec<_>>().join(",") + "\n";
    std::fs::write(&file, header + &(0..40).map(row).collect::<String>()).expect("written");
    let args =
        ["train", &file, "--target", "c5", "--window", "2", "--units", "1", "--epochs", "1", "--quiet", "--out", &out];
    let begun = std::time::Instant::now();
    answered("many columns", &program(&args), &[0]);
    // With the cube of the columns it would be an hour.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn absurd_numbers_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, model) = trained(folder.path());
    let out = folder.path().join("other").display().to_string();
    for option in ["--units", "--window", "--horizon", "--batch-size", "--epochs", "--patience"] {
        for number in ["0", "-1", "1.5", "18446744073709551615", "9223372036854775807", "99999999999999999999", "x", ""]
        {
            // A limit far away is a limit: so many epochs would be run, or waited for.
            if (option == "--epochs" || option == "--patience") && number.len() > 2 && number.parse::<u64>().is_ok() {
                continue;
            }
            let mut args = vec!["train", &data, "--quiet", "--out", &out];
            if option != "--epochs" {
                args.extend(["--epochs", "1"]);
            }
            args.extend([option, number]);
            let code = answered(&format!("train {option} {number}"), &program(&args), &[0, 2]);
            let usable = option == "--batch-size" && number.parse::<u64>().is_ok_and(|n| n > 0);
            let patient = option == "--patience" && number == "0";
            assert!(code == 2 || usable || patient, "train {option} {number} is accepted");
        }
    }
    for option in ["--learning-rate", "--test-fraction", "--validation-fraction"] {
        for number in ["nan", "inf", "-1", "1e999", "1.5", "x"] {
            let args = ["train", &data, "--quiet", "--out", &out, "--epochs", "1", option, number];
            let code = answered(&format!("train {option} {number}"), &program(&args), &[0, 2]);
            assert!(
                code == 2 || (option == "--learning-rate" && number == "1.5"),
                "train {option} {number} is accepted"
            );
        }
    }
    for number in ["0", "-1", "18446744073709551615", "1000000000000000", "x"] {
        let output = program(&["predict", &model, &data, "--horizon", number, "--out", &out]);
        answered(&format!("predict --horizon {number}"), &output, &[2]);
    }
    for command in ["bench", "gradcheck"] {
        for option in ["--seq-len", "--batch", "--input-size", "--hidden-size", "--layers"] {
            for number in ["0", "-1", "1000000000000", "18446744073709551615", "x"] {
                // A sweep says of a point that it cannot be, and goes on.
                let codes: &[i32] = if command == "bench" { &[1, 2] } else { &[2] };
                answered(&format!("{command} {option} {number}"), &program(&[command, option, number]), codes);
            }
        }
    }
    for tolerance in ["nan", "-1", "inf", "x"] {
        let case = fixtures()[0].display().to_string();
        let output = program(&["parity", &case, "--tolerance", tolerance]);
        answered(&format!("parity --tolerance {tolerance}"), &output, &[2]);
    }
}

#[test]
fn paths_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, model) = trained(folder.path());
    let file = folder.path().join("a file");
    std::fs::write(&file, b"x").expect("written");
    let (file, inside) = (file.display().to_string(), folder.path().join("a file/inside").display().to_string());
    let absent = folder.path().join("absent").display().to_string();
    let here = folder.path().display().to_string();
    for (what, args, codes) in [
        ("no such data", vec!["train", &absent, "--epochs", "1"], vec![2]),
        ("a folder as data", vec!["train", &here, "--epochs", "1"], vec![2]),
        ("a file as the folder", vec!["train", &data, "--epochs", "1", "--out", &file], vec![2]),
        ("a folder in a file", vec!["train", &data, "--epochs", "1", "--out", &inside], vec![2]),
        ("no such column", vec!["train", &data, "--epochs", "1", "--column", "no such"], vec![2]),
        ("no such model", vec!["predict", &absent, &data, "--horizon", "3"], vec![2]),
        ("data as a model", vec!["predict", &data, &data, "--horizon", "3"], vec![2]),
        ("a model as data", vec!["predict", &model, &model, "--horizon", "3"], vec![2]),
        ("no such case", vec!["parity", &absent], vec![1, 2]),
        ("a folder as a case", vec!["parity", &here], vec![1, 2]),
        ("data as a case", vec!["parity", &data], vec![1, 2]),
        ("a model as a case", vec!["parity", &model], vec![1, 2]),
        ("no such backend", vec!["parity", &absent, "--backend", "tpu"], vec![2]),
        ("no such command", vec!["trian"], vec![2]),
        ("nothing", vec![], vec![2]),
    ] {
        answered(what, &program(&args), &codes);
    }
}
