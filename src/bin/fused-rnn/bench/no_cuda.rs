//! This build has no CUDA backend.

#![allow(dead_code, reason = "nothing makes what an opened GPU is")]

use fused_rnn::backend::ForwardMode;
use fused_rnn::rnn::{RnnDescriptor, RnnShape};
use fused_rnn::{Device, Error, Result};

use super::point::Point;
use super::subject::Subject;

fn missing() -> Error {
    Error::Unsupported {
        what: "the cuda backend".into(),
        why: "this build lacks the feature `cuda`; build with `--features cuda`".into(),
    }
}

#[derive(Default)]
pub struct Gpu;

pub struct Opened {
    pub device: Device,
}

impl Gpu {
    pub fn open(&mut self, _: &Point, _: &str) -> Result<Opened> {
        Err(missing())
    }
}

pub fn plan(_: &Device, _: RnnShape, _: &RnnDescriptor, _: ForwardMode) -> Result<(String, String)> {
    Err(missing())
}

pub struct Calls<'a>(&'a Opened);

impl<'a> Calls<'a> {
    pub fn new(_: &'a Opened, _: Subject, _: &Point, _: bool) -> Result<Self> {
        Err(missing())
    }

    pub fn sample(&mut self) -> Result<f64> {
        Err(missing())
    }
}
