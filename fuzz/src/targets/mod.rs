//! What is done with the bytes of an input: one [`Target`] for each reader. The fuzzer calls them, and so does the test that replays the corpora.
//!
//! A target panics where a promise is broken: a reader panics, an error says nothing or writes on the terminal what it should not, memory is out
//! of proportion to the file, what was read cannot be used, saved and read again.

mod arrays;
pub mod checkpoint;
mod data;
mod exchange;
pub mod memory;
mod model;
mod parity;
mod used;

use std::path::PathBuf;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::{Device, Error};

/// What an input is, for those who change it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines of text.
    Text,
    /// JSON.
    Json,
    /// safetensors, with JSON in this entry of the metadata.
    Tensors(&'static str),
    /// A zip archive.
    Archive,
    /// A message of Protocol Buffers.
    Messages,
    /// Anything else.
    Bytes,
}

/// A reader, and what is done with what it reads.
pub struct Target {
    /// The name of its corpus's folder.
    pub name: &'static str,
    /// What an input is.
    pub form: Form,
    /// The longest input that is made.
    pub longest: usize,
    /// Does it; says whether the reader took the input.
    pub run: fn(&[u8]) -> bool,
}

/// All of them.
#[rustfmt::skip]
pub const ALL: &[Target] = &[
    Target { name: "configuration", form: Form::Json, longest: 8 << 10, run: model::configuration },
    Target { name: "model", form: Form::Tensors("fused-rnn"), longest: 16 << 10, run: model::model },
    Target { name: "weights", form: Form::Tensors("fused-rnn weights"), longest: 4 << 10, run: model::weights },
    Target { name: "checkpoint", form: Form::Tensors("fused-rnn checkpoint"), longest: 8 << 10, run: checkpoint::checkpoint },
    Target { name: "csv", form: Form::Text, longest: 4 << 10, run: data::csv },
    Target { name: "times", form: Form::Text, longest: 1 << 10, run: data::times },
    Target { name: "ts", form: Form::Text, longest: 4 << 10, run: data::ts },
    Target { name: "tokenizer", form: Form::Json, longest: 2 << 10, run: data::tokenizer },
    Target { name: "parity", form: Form::Tensors("case"), longest: 8 << 10, run: parity::case },
    Target { name: "onnx", form: Form::Messages, longest: 16 << 10, run: exchange::onnx },
    Target { name: "keras", form: Form::Archive, longest: 64 << 10, run: exchange::keras },
    Target { name: "keras_weights", form: Form::Bytes, longest: 64 << 10, run: exchange::keras_weights },
    Target { name: "state_dict", form: Form::Tensors("format"), longest: 8 << 10, run: exchange::state_dict },
    Target { name: "npz", form: Form::Archive, longest: 8 << 10, run: arrays::npz },
    Target { name: "safetensors", form: Form::Tensors("format"), longest: 4 << 10, run: arrays::safetensors },
];

/// The target of this name.
pub fn named(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}

/// The fast processor's device, on this thread alone: the fuzzer counts what runs here.
fn device() -> Device {
    CpuBackend::<f32>::with_threads(1).expect("one thread").into()
}

/// A file for one reader at a time; its folder is removed when the thread ends.
fn scratch(name: &str) -> PathBuf {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder");
    }
    FOLDER.with(|folder| folder.path().join(name))
}

/// A scratch file with these bytes.
fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = scratch(name);
    // Removed first: a file that is cut to nothing and written again waits for the disk on some file systems.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).expect("written");
    path
}

/// What a reader may ask of memory: so much for any file, and so often its size.
const LEAST_MEMORY: usize = 160 << 20;
const TIMES_THE_FILE: usize = 600;

/// Reads, and says what it cost where that is out of proportion to the file; an error has a message that fits one line of a terminal.
fn read<T>(size: usize, read: impl FnOnce() -> Result<T, Error>) -> Option<T> {
    memory::start();
    let result = read();
    let most = memory::most();
    assert!(most <= LEAST_MEMORY + TIMES_THE_FILE * size, "{most} bytes of memory for a file of {size}");
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            refused(&error);
            None
        }
    }
}

/// An error's message says something, and nothing to the terminal.
fn refused(error: &Error) {
    let text = error.to_string();
    assert!(!text.trim().is_empty(), "{error:?}");
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.len() < 100_000, "a message of {} bytes", text.len());
}
