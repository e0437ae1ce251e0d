//! What was found at a point, as the columns of a CSV file and the names of a JSON object.

use fused_rnn::Error;
use serde_json::{Value, json};

use super::ceilings::Ceilings;
use super::point::Point;
use super::timing::{Times, ratio};

/// Our own side of a point.
pub struct Ours {
    pub times: Times,
    /// The same operator with the input's gates given: without the product of x with the input weights.
    pub without_input: Option<Times>,
    /// Who computes, and why so.
    pub plan: String,
    pub why: String,
    pub operations: f64,
    pub moved_bytes: f64,
    pub workspace_bytes: usize,
    pub reserve_bytes: usize,
    pub memory_bytes: usize,
    pub resident_bytes: Option<usize>,
    /// Of the processor; a GPU's are not measured.
    pub ceilings: Option<Ceilings>,
    /// Nanoseconds of a line of the cache between two threads and back, before each round; none for one thread and for a GPU.
    pub round_trips: Times,
}

impl Ours {
    pub fn gflops(&self) -> f64 {
        self.operations / self.times.median() * 1e-3
    }

    /// Operations a byte that must be moved.
    pub fn intensity(&self) -> f64 {
        self.operations / self.moved_bytes
    }

    /// Nanoseconds, the median over rounds.
    pub fn round_trip(&self) -> Option<f64> {
        (self.round_trips.count() > 0).then(|| self.round_trips.median())
    }

    pub fn compute_share(&self) -> Option<f64> {
        self.ceilings.map(|ceilings| self.gflops() / ceilings.gflops)
    }

    pub fn memory_share(&self) -> Option<f64> {
        self.ceilings.map(|ceilings| self.moved_bytes / self.times.median() * 1e-3 / ceilings.gbytes)
    }
}

/// A peer's side of a point.
pub struct Theirs {
    pub peer: &'static str,
    pub outcome: Compared,
}

pub enum Compared {
    /// Within the tolerance, and timed.
    Timed {
        times: Times,
        error: f64,
    },
    /// It has no such operator.
    Unsupported(String),
    /// Another result than ours.
    Mismatch {
        error: f64,
        worst: String,
        tolerance: f64,
    },
    Failed(String),
}

impl Theirs {
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Compared::Mismatch { .. } | Compared::Failed(_))
    }

    /// Microseconds of a call, and the ratio of its time to ours.
    pub fn timed(&self, ours: &Ours) -> Option<(&Times, f64)> {
        match &self.outcome {
            Compared::Timed { times, .. } => Some((times, ratio(&ours.times, times))),
            _ => None,
        }
    }

    /// Why there is no time.
    pub fn note(&self) -> Option<String> {
        match &self.outcome {
            Compared::Timed { .. } => None,
            Compared::Unsupported(why) => Some(format!("not supported: {why}")),
            Compared::Mismatch { error, worst, tolerance } => {
                Some(format!("mismatch: relative error {error:.2e} in {worst}, tolerance {tolerance:.0e}"))
            }
            Compared::Failed(problem) => Some(problem.clone()),
        }
    }
}

/// A point and what was found there.
pub struct Record {
    pub point: Point,
    pub graph: bool,
    pub matmul: String,
    pub ours: Result<Ours, Error>,
    pub theirs: Vec<Theirs>,
}

impl Record {
    pub fn is_failure(&self) -> bool {
        self.ours.is_err() || self.theirs.iter().any(Theirs::is_failure)
    }

    pub fn per_step(&self, us: f64) -> f64 {
        us / self.point.shape.seq_len as f64
    }

    /// Every column in order, with null where there is nothing. `machine` and `peers` are the run's.
    pub fn fields(&self, machine: &str, peers: &[&'static str]) -> Vec<(String, Value)> {
        let (point, ours) = (&self.point, self.ours.as_ref().ok());
        let s = point.sizes;
        let of = |value: &dyn Fn(&Ours) -> Value| ours.map_or(Value::Null, value);
        let step = |us: f64| json!(self.per_step(us));
        let mut fields: Vec<(String, Value)> = Vec::new();
        let mut push = |name: &str, value: Value| fields.push((name.to_owned(), value));
        push("cell", json!(s.cell.to_string()));
        push("seq_len", json!(point.shape.seq_len));
        push("batch", json!(point.shape.batch));
        push("input_size", json!(s.input_size));
        push("hidden_size", json!(s.hidden_size));
        push("layers", json!(s.layers));
        push("direction", json!(point.direction_name()));
        push("heads", json!(s.heads));
        push("dtype", json!(point.number_name()));
        push("backend", json!(point.backend_name()));
        push("device", json!(point.device));
        push("threads", json!(point.threads));
        push("pass", json!(point.pass_name()));
        push("lengths", json!(point.lengths.to_string()));
        push("graph", json!(self.graph));
        push("matmul", json!(self.matmul));
        push("us_per_step", of(&|o| step(o.times.median())));
        push("us_per_step_p10", of(&|o| step(o.times.quantile(0.1))));
        push("us_per_step_p90", of(&|o| step(o.times.quantile(0.9))));
        push("us_per_call", of(&|o| json!(o.times.median())));
        push("us_per_call_p10", of(&|o| json!(o.times.quantile(0.1))));
        push("us_per_call_p90", of(&|o| json!(o.times.quantile(0.9))));
        push("us_per_call_best", of(&|o| json!(o.times.best())));
        push("samples", of(&|o| json!(o.times.count())));
        push("rounds", of(&|o| json!(o.times.rounds.len())));
        let bare = |o: &Ours| o.without_input.as_ref().map_or(Value::Null, |times| step(times.median()));
        push("us_per_step_without_input", of(&bare));
        push("gflops", of(&|o| json!(o.gflops())));
        push("intensity", of(&|o| json!(o.intensity())));
        push("compute_share", of(&|o| json!(o.compute_share())));
        push("memory_share", of(&|o| json!(o.memory_share())));
        push("peak_gflops", of(&|o| json!(o.ceilings.map(|c| c.gflops))));
        push("peak_gbytes", of(&|o| json!(o.ceilings.map(|c| c.gbytes))));
        push("round_trip_ns", of(&|o| json!(o.round_trip())));
        push("workspace_bytes", of(&|o| json!(o.workspace_bytes)));
        push("reserve_bytes", of(&|o| json!(o.reserve_bytes)));
        push("memory_bytes", of(&|o| json!(o.memory_bytes)));
        push("resident_peak_bytes", of(&|o| json!(o.resident_bytes)));
        push("plan", of(&|o| json!(o.plan)));
        push("why", of(&|o| json!(o.why)));
        for peer in peers {
            let theirs = self.theirs.iter().find(|theirs| theirs.peer == *peer);
            let timed = theirs.zip(ours).and_then(|(theirs, ours)| theirs.timed(ours));
            push(&format!("{peer}_us_per_step"), timed.map_or(Value::Null, |(times, _)| step(times.median())));
            push(&format!("{peer}_us_per_step_p10"), timed.map_or(Value::Null, |(times, _)| step(times.quantile(0.1))));
            push(&format!("{peer}_us_per_step_p90"), timed.map_or(Value::Null, |(times, _)| step(times.quantile(0.9))));
            push(&format!("{peer}_ratio"), timed.map_or(Value::Null, |(_, ratio)| json!(ratio)));
            let error = theirs.and_then(|theirs| match theirs.outcome {
                Compared::Timed { error, .. } | Compared::Mismatch { error, .. } => Some(error),
                _ => None,
            });
            push(&format!("{peer}_relative_error"), json!(error));
            push(&format!("{peer}_note"), json!(theirs.and_then(Theirs::note)));
        }
        push("machine", json!(machine));
        push("error", json!(self.ours.as_ref().err().map(ToString::to_string)));
        fields
    }

    /// One JSON object, its names in the order of the columns; absent is what is null.
    pub fn json(&self, machine: &str, peers: &[&'static str]) -> String {
        let fields = self.fields(machine, peers);
        let pairs = fields.iter().filter(|(_, value)| !value.is_null());
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("{}: {value}", json!(name))).collect();
        format!("{{{}}}\n", pairs.join(", "))
    }
}

/// Records as a CSV file.
pub fn csv(records: &[Record], machine: &str, peers: &[&'static str]) -> fused_rnn::Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| Error::Unsupported {
        what: "this CSV file".to_owned(),
        why: format!("writing it failed: {error}"),
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (index, record) in records.iter().enumerate() {
        let fields = record.fields(machine, peers);
        if index == 0 {
            writer.write_record(fields.iter().map(|(name, _)| name)).map_err(|error| failed(&error))?;
        }
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        writer.write_record(fields.iter().map(|(_, value)| text(value))).map_err(|error| failed(&error))?;
    }
    writer.into_inner().map_err(|error| failed(&error))
}
