//! Other implementations, each in a process of its own that computes and times the same points: JSON objects, one a line, over its
//! standard input and output; weights, inputs and results in files.
//!
//! A helper first says `{"peer", "version"}` or `{"missing"}`. It answers `{"do": "prepare", …}` (see [`Request`]) with `{"outputs": […]}`
//! when it has written these as raw little-endian elements into the folder named, or with `{"unsupported"}`; `{"do": "time", "seconds",
//! "least"}` with `{"us": […]}`, microseconds of each call; anything with `{"error"}`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use fused_rnn::Result;
use serde_json::{Value, json};

use super::values::invalid;

/// The Python side, which is part of this program.
const HELPER: &str = include_str!("../../../../benches/peers/helper.py");

/// Builds the helper of the peers that are Rust crates, which is a program of its own (`benches/peers/rust`).
const BUILD: &str = "cargo build --release --locked --manifest-path benches/peers/rust/Cargo.toml";

/// An implementation to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    /// The arguments of Python that install it, where it is a library of Python.
    install: Option<&'static str>,
}

const fn python(name: &'static str, install: &'static str) -> Kind {
    Kind { name, install: Some(install) }
}

/// The programs that run peers.
#[derive(Clone, Copy)]
pub struct Programs<'a> {
    pub python: &'a Path,
    pub rust: &'a Path,
}

/// Those that are known.
pub const KINDS: [Kind; 5] = [
    python("torch", "-m pip install torch numpy"),
    python("onnxruntime", "-m pip install onnxruntime onnx numpy"),
    python("keras", "-m pip install keras tensorflow-cpu numpy"),
    Kind { name: "candle", install: None },
    Kind { name: "burn", install: None },
];

/// The peers of a list of names.
///
/// # Errors
///
/// [`Error::InvalidOption`](fused_rnn::Error::InvalidOption) for a name that is none of [`KINDS`].
pub fn parse(text: &str) -> Result<Vec<Kind>> {
    let names = KINDS.map(|kind| (kind.name, kind));
    let mut found: Vec<Kind> = Vec::new();
    for kind in super::values::words("peers", text, &names)? {
        if found.contains(&kind) {
            return Err(invalid("peers", "each peer once", text));
        }
        found.push(kind);
    }
    Ok(found)
}

/// Longest waits for a helper: for imports; for a point to be built and computed; for a timing beyond its seconds.
const START: Duration = Duration::from_secs(300);
const PREPARE: Duration = Duration::from_secs(900);
const TIMING: Duration = Duration::from_secs(600);

/// What a helper did not do, and why.
#[derive(Debug)]
pub enum Failure {
    /// It has no such operator: not a failure of the run.
    Unsupported(String),
    Failed(String),
}

/// A peer of a run.
pub struct Peer {
    pub kind: Kind,
    program: PathBuf,
    process: Option<Process>,
    pub version: String,
    /// Why it takes part in nothing.
    pub missing: Option<String>,
}

/// A helper. Threads of their own write and read, so that one that does neither is not waited for without end.
struct Process {
    child: Child,
    to: Sender<String>,
    from: Receiver<std::io::Result<String>>,
}

impl Process {
    /// How it ended, after its output did; one that has not ended by then is.
    fn end(&mut self) -> String {
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!("its helper ended with {status}"),
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => return error.to_string(),
            }
        }
        "its helper closed its output".to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts it, and learns whether it is installed.
    pub fn start(kind: Kind, programs: Programs<'_>) -> Self {
        let program = if kind.install.is_some() { programs.python } else { programs.rust };
        let mut peer = Peer { kind, program: program.to_owned(), process: None, version: String::new(), missing: None };
        peer.missing = peer.open().err().map(|problem| format!("{} is not measured: {problem}", kind.name));
        peer
    }

    fn open(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        if self.kind.install.is_some() {
            command.args(["-c", HELPER]);
        }
        let mut child =
            command.arg(self.kind.name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|source| {
                let way_out = match self.kind.install {
                    Some(_) => "name an interpreter by --python".to_owned(),
                    None => format!("build it by `{BUILD}`, or name it by --rust-peers"),
                };
                format!("{} does not start: {source}; {way_out}", self.program.display())
            })?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("its standard input and output are not there".to_owned());
        };
        let (send, from) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let (to, requests) = channel::<String>();
        std::thread::spawn(move || {
            // Whatever goes wrong shows in the answer that does not come.
            while requests.recv().is_ok_and(|line| writeln!(input, "{line}").and_then(|()| input.flush()).is_ok()) {}
        });
        self.process = Some(Process { child, to, from });
        let first = self.answer(START)?;
        if let Some(why) = first["missing"].as_str() {
            self.process = None;
            let (program, install) = (self.program.display(), self.kind.install.unwrap_or_default());
            return Err(format!("{program} has no {why}; install it by `{program} {install}`"));
        }
        match first["version"].as_str() {
            Some(version) => self.version = version.to_owned(),
            None => return Err(format!("it began with {first} instead of its version")),
        }
        Ok(())
    }

    /// The next line of its answers; a helper that gives none in time, or something else, is ended.
    fn answer(&mut self, wait: Duration) -> Result<Value, String> {
        let Some(process) = &mut self.process else { return Err("its helper has ended".to_owned()) };
        let line = match process.from.recv_timeout(wait) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => {
                self.process = None;
                return Err(format!("its answer cannot be read: {error}"));
            }
            Err(RecvTimeoutError::Timeout) => {
                self.process = None;
                return Err(format!("no answer within {} s", wait.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let how = process.end();
                self.process = None;
                return Err(how);
            }
        };
        serde_json::from_str::<Value>(&line).ok().filter(Value::is_object).ok_or_else(|| {
            self.process = None;
            format!("it answered {:?} instead of a JSON object", line.chars().take(80).collect::<String>())
        })
    }

    fn ask(&mut self, request: &Value, wait: Duration) -> Result<Value, Failure> {
        if self.process.is_none() {
            // Another ended at an earlier point.
            self.open().map_err(Failure::Failed)?;
        }
        if let Some(process) = &self.process {
            // Where nobody takes it any more, no answer comes.
            let _ = process.to.send(request.to_string());
        }
        let answer = self.answer(wait).map_err(Failure::Failed)?;
        if let Some(why) = answer["unsupported"].as_str() {
            return Err(Failure::Unsupported(why.to_owned()));
        }
        match answer["error"].as_str() {
            Some(problem) => Err(Failure::Failed(problem.to_owned())),
            None => Ok(answer),
        }
    }

    /// Builds a point and computes it once; the names of the results, which stand as files in the folder of the request.
    pub fn prepare(&mut self, request: &Value) -> Result<Vec<String>, Failure> {
        let answer = self.ask(request, PREPARE)?;
        let names = answer["outputs"].as_array().map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned));
        match names.map(Iterator::collect::<Vec<_>>) {
            Some(names) if !names.is_empty() => Ok(names),
            _ => Err(Failure::Failed(format!("it answered {answer} instead of its outputs"))),
        }
    }

    /// Times calls of the point that was prepared.
    pub fn time(&mut self, seconds: f64, least: usize) -> Result<Vec<f64>, Failure> {
        let request = json!({ "do": "time", "seconds": seconds, "least": least });
        let answer = self.ask(&request, TIMING + Duration::from_secs_f64(seconds))?;
        let times: Option<Vec<f64>> = answer["us"].as_array().map(|us| us.iter().filter_map(Value::as_f64).collect());
        match times {
            Some(times) if !times.is_empty() && times.iter().all(|time| time.is_finite() && *time > 0.0) => Ok(times),
            _ => Err(Failure::Failed("its times are not numbers above zero".to_owned())),
        }
    }
}
