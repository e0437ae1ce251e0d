//! Random programs against the library, with absurd arguments among the usual ones: no panic, no abort, no hang, errors that name something,
//! and whatever could be built is saved, loaded, and predicts the same bits.
//!
//! Programs run in a child process whose address space is bounded, so that a size that is taken at its word shows itself; the parent sees how
//! far the child has come, and gives each program a limit of time. How to repeat a program, or run many, stands in tests/README.md.

#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod calls;
mod layers;
mod models;
mod operator;

use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use common::Rng;
use fused_rnn::Error;

/// What a child is to run: kind, first seed, number.
const CHILD: &str = "FUSED_RNN_RANDOM_PROGRAMS_CHILD";
/// Seconds that a program may take. The slowest takes a tenth of it.
const LIMIT: u64 = 60;
/// KiB of address space. The largest model of a program that is to work takes a thousandth of it.
const MEMORY: u64 = 2_500_000;

/// Programs that came to something, rather than being refused early: the others would test the checks of arguments alone.
static USEFUL: AtomicU64 = AtomicU64::new(0);

/// Says that this program came to something.
fn note_useful() {
    USEFUL.fetch_add(1, Ordering::Relaxed);
}

/// What a program says that is wrong.
type Outcome = Result<(), String>;

/// Refuses an error that says nothing, or says it as no terminal should be told.
fn check_error(error: &Error) -> Outcome {
    let text = error.to_string();
    let odd = text.chars().find(|c| c.is_control());
    match (text.trim().len(), odd) {
        (0..10, _) => Err(format!("an error that says nothing: {error:?}")),
        (_, Some(odd)) => Err(format!("an error with {odd:?}: {text:?}")),
        (20_000.., _) => Err(format!("an error of {} bytes: {:.200}…", text.len(), text)),
        _ => Ok(()),
    }
}

/// What was computed, or nothing where it was refused as it should be.
fn accepted<T>(result: fused_rnn::Result<T>) -> Result<Option<T>, String> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => check_error(&error).map(|()| None),
    }
}

fn run(kind: &str, seed: u64, folder: &std::path::Path) -> Outcome {
    let mut rng = Rng::new(seed);
    match kind {
        "models" => models::program(&mut rng, folder),
        "calls" => calls::program(&mut rng, folder),
        "operator" => operator::program(&mut rng),
        other => Err(format!("no kind of program is called {other}")),
    }
}

/// Runs in the child: one line a program, `begin SEED`, and one for what is wrong.
#[test]
#[ignore = "a part of the others, which run it with its arguments"]
fn child() {
    let task = std::env::var(CHILD).expect("what to run");
    let parts: Vec<&str> = task.split(' ').collect();
    let [kind, first, count] = parts.as_slice() else { panic!("a kind, a seed and a number, not {task:?}") };
    let (first, count): (u64, u64) = (first.parse().expect("a seed"), count.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", line.replace('\n', " ")).expect("said");
        out.flush().expect("said");
    };
    for seed in first..first + count {
        say(format!("begin {seed}"));
        let outcome = catch_unwind(AssertUnwindSafe(|| run(kind, seed, folder.path())));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(text)) => say(format!("wrong {seed}: {text}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                say(format!("wrong {seed}: a panic, {}", text.unwrap_or_default()));
            }
        }
    }
    say(format!("useful {}", USEFUL.load(Ordering::Relaxed)));
    say("end".to_owned());
}

/// Runs so many programs of a kind, and fails with all that is wrong.
fn check(kind: &str, count: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let (mut next, end) = match (number("FUSED_RNN_SEED"), number("FUSED_RNN_CASES")) {
        (Some(seed), None) => (seed, seed + 1),
        // From another seed, where both are given.
        (seed, times) => (seed.unwrap_or(0), seed.unwrap_or(0) + count * times.unwrap_or(1)),
    };
    let (begin, mut wrong, mut useful) = (next, Vec::new(), 0);
    while next < end && wrong.len() < 50 {
        next = run_child(kind, next, end, &mut wrong, &mut useful);
    }
    let again = "repeat one by FUSED_RNN_SEED=… cargo test --features cli --test random_programs";
    assert!(wrong.is_empty(), "{} programs; {again} {kind}\n{}", wrong.len(), wrong.join("\n"));
    println!("{useful} of {} programs came to something", end - begin);
    assert!(end - begin < 100 || useful > (end - begin) / 4, "{useful} of {} came to something", end - begin);
}

/// Runs the programs of these seeds in a child, and gives the seed to go on with.
fn run_child(kind: &str, first: u64, end: u64, wrong: &mut Vec<String>, useful: &mut u64) -> u64 {
    let program = std::env::current_exe().expect("this program");
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"")]).arg(program);
        shell
    } else {
        Command::new(program)
    };
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, format!("{kind} {first} {}", end - first));
    // Threads' heaps would take the address space.
    command.env("MALLOC_ARENA_MAX", "2").env_remove("FUSED_RNN_SEED").env_remove("FUSED_RNN_CASES");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let (send, receive) = channel();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let (mut seed, mut ended) = (first, false);
    let problem = loop {
        match receive.recv_timeout(Duration::from_secs(LIMIT)) {
            Ok(line) => {
                // The harness of tests writes on the line of the first.
                if let Some((_, begun)) = line.split_once("begin ") {
                    seed = begun.trim().parse().unwrap_or(seed);
                } else if let Some((_, text)) = line.split_once("wrong ") {
                    wrong.push(text.to_owned());
                } else if let Some(count) = line.strip_prefix("useful ") {
                    *useful += count.parse::<u64>().unwrap_or(0);
                } else if line == "end" {
                    ended = true;
                }
            }
            Err(RecvTimeoutError::Timeout) => break Some(format!("no end within {LIMIT} s")),
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    if problem.is_some() {
        child.kill().expect("killed");
    }
    let status = child.wait().expect("its end");
    reader.join().expect("the reader").ok();
    if ended && problem.is_none() && status.success() {
        return end;
    }
    let problem = problem.unwrap_or_else(|| format!("the process ended, {status}"));
    wrong.push(format!("{seed}: {problem}"));
    seed + 1
}

#[test]
fn models() {
    check("models", 600);
}

#[test]
fn calls() {
    check("calls", 3000);
}

#[test]
fn operator() {
    check("operator", 3000);
}
