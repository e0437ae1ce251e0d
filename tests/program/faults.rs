//! A disk that fails: every call that changes something in a folder fails once, and from there on, under a library in LD_PRELOAD
//! (`faults/faults.c`). What stood there stays whole, the error names the file, and nothing else is left.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fused_rnn::Device;
use fused_rnn::interop::safetensors::TensorFile;
use fused_rnn::model::Trained;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fused-rnn");

/// The library; `None` where there is no C compiler.
fn library(folder: &TempDir) -> Option<PathBuf> {
    let library = folder.path().join("faults.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/faults/faults.c");
    match Command::new(&compiler).args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").output()
    {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(library)
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: faults of a disk: no C compiler ({compiler}: {error})");
            None
        }
    }
}

/// What files hold; temporary ones under the one name that they have in common.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect()
}

/// Linux's numbers of the errors, and what it says.
const FAULTS: [(i32, &str); 2] = [(28, "No space left on device"), (5, "Input/output error")];

/// Runs a command with a fault at every call that changes something in `out`, which has the files of `before`, until it has none.
fn with_faults(what: &str, before: &BTreeMap<String, Vec<u8>>, args: impl Fn(&Path) -> Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = library(&folder) else { return };
    let count = folder.path().join("count");
    let run = |out: &Path, at: usize, (errno, _): (i32, &str), stays: bool| -> (Output, usize) {
        let mut command = Command::new(PROGRAM);
        command.args(args(out)).env("LD_PRELOAD", &library).env("FAULT_FOLDER", out).env("FAULT_COUNT", &count);
        command.env("FAULT_AT", at.to_string()).env("FAULT_ERRNO", errno.to_string());
        if stays {
            command.env("FAULT_STAYS", "1");
        }
        let output = command.output().unwrap();
        let calls = std::fs::read_to_string(&count).unwrap().trim().parse().unwrap();
        (output, calls)
    };
    let new = |name: &str| {
        let out = folder.path().join(name);
        std::fs::create_dir(&out).unwrap();
        before.iter().for_each(|(name, bytes)| std::fs::write(out.join(name), bytes).unwrap());
        out
    };
    let out = new("sound");
    let (output, calls) = run(&out, 0, FAULTS[0], false);
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(calls >= 4, "{what}: {calls} calls: a file is opened, written, synced, renamed");
    let after = content(&out);
    println!("{what}: {calls} calls");
    for (stays, fault) in [(false, FAULTS[1]), (true, FAULTS[0])] {
        for at in 1..=calls {
            let place = format!("{what}: call {at} of {calls} fails{}", if stays { ", and all after it" } else { "" });
            let out = new(&format!("{at}_{stays}"));
            let (output, _) = run(&out, at, fault, stays);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            let says = |line: &&str| line.contains(fault.1) && line.contains(&*out.to_string_lossy());
            let begins = match output.status.code() {
                Some(2) => "error: ",
                // A checkpoint that cannot be written ends no training.
                Some(0) if !stays && what == "train" => "training goes on, but --resume could not: ",
                code => panic!("{place}: exit code {code:?}: {error}"),
            };
            let lines: Vec<&str> = error.lines().filter(|line| line.starts_with(begins)).collect();
            assert!(lines.len() == 1 && lines.iter().all(says), "{place}: {error}");
            for (name, bytes) in content(&out) {
                let known = [before.get(&name), after.get(&name)];
                let is_whole = known.contains(&Some(&bytes)) || is_whole(&out, &name);
                assert!(
                    is_whole,
                    "{place}: {name} has {} bytes that are neither the old nor the new: {error}",
                    bytes.len()
                );
            }
            assert!(before.keys().all(|name| out.join(name).exists()), "{place}: an old file is gone");
        }
    }
}

/// A model of an epoch that was not the last is whole too, and a checkpoint.
fn is_whole(out: &Path, name: &str) -> bool {
    match name {
        "model.safetensors" => Trained::load(Device::cpu(), out.join(name)).is_ok(),
        "checkpoint.safetensors" => TensorFile::read(out.join(name)).is_ok(),
        _ => false,
    }
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn train_args(out: &Path, seed: &str) -> Vec<String> {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sunspots_yearly.csv");
    let out = out.to_str().unwrap();
    strings(&["train", data, "--out", out, "--units", "2", "--window", "4", "--epochs", "2", "--seed", seed])
}

/// What a training writes.
fn trained() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM).args(train_args(folder.path(), "1")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    content(folder.path())
}

#[test]
fn a_training_into_a_folder_with_another() {
    with_faults("train", &trained(), |out| train_args(out, "2"));
}

#[test]
fn a_training_into_an_empty_folder() {
    with_faults("train", &BTreeMap::new(), |out| train_args(out, "2"));
}

#[test]
fn what_is_made_of_a_model() {
    let models = tempfile::tempdir().unwrap();
    trained().iter().for_each(|(name, bytes)| std::fs::write(models.path().join(name), bytes).unwrap());
    let model = models.path().join("model.safetensors").to_str().unwrap().to_owned();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sunspots_yearly.csv");
    let at = |out: &Path, name: &str| out.join(name).to_str().unwrap().to_owned();
    let old = |name: &str| BTreeMap::from([(name.to_owned(), b"old".to_vec())]);
    with_faults("predict", &old("next.csv"), |out| strings(&["predict", &model, data, "--out", &at(out, "next.csv")]));
    with_faults("plot", &old("model.svg"), |out| strings(&["plot", &model, "--out", &at(out, "model.svg")]));
    for name in ["model.onnx", "model.keras"] {
        with_faults("export", &old(name), |out| strings(&["export", &model, &at(out, name)]));
    }
}
