//! What something of Keras becomes here: layers, what each of them is given, and where their arrays stand.

use std::collections::BTreeSet;

use ndarray::ArrayD;

use crate::nn::{LayerConfig, Reshape};

/// Where the arrays of a layer come from.
#[derive(Clone, Debug)]
pub(super) enum Arrays {
    /// Groups of the file, in the order of Keras's `get_weights()`.
    Groups(Vec<String>),
    /// Some arrays of a group.
    Part {
        group: String,
        /// The first one.
        first: usize,
        /// How many.
        count: usize,
        layout: Layout,
    },
    /// The configuration itself.
    Given(Vec<ArrayD<f64>>),
}

/// How Keras has an array that this crate has in another shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The same.
    Same,
    /// Several axes that are one here.
    Flat,
    /// `[steps, features, multiplier]`, here `[steps, 1, features * multiplier]`.
    Depthwise,
    /// Several axes, of which the first array has another order here, and all in front of the last `columns` elements are one; other arrays
    /// have one axis.
    Matrix {
        /// Which axis there is each one here.
        order: Vec<usize>,
        /// Elements of the last axis here.
        columns: usize,
    },
}

impl Arrays {
    /// Groups below that of Keras's layer.
    pub fn of(groups: &[&str]) -> Self {
        Arrays::Groups(groups.iter().map(|group| (*group).to_owned()).collect())
    }

    /// The same with groups below another.
    pub fn below(self, outer: &str) -> Self {
        let place = |part: &str| super::plan::below(outer, part);
        match self {
            Arrays::Groups(groups) => Arrays::Groups(groups.iter().map(|group| place(group)).collect()),
            Arrays::Part { group, first, count, layout } => Arrays::Part { group: place(&group), first, count, layout },
            given @ Arrays::Given(_) => given,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Arrays::Groups(groups) if groups.is_empty())
    }

    /// The groups that they stand in.
    pub fn groups(&self) -> &[String] {
        match self {
            Arrays::Groups(groups) => groups,
            Arrays::Part { group, .. } => std::slice::from_ref(group),
            Arrays::Given(_) => &[],
        }
    }
}

/// A tensor within a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// One of those that it is called with.
    Call(usize),
    /// An output of one of its layers.
    Piece(usize, usize),
}

/// A layer of a program.
#[derive(Debug)]
pub(super) struct Piece {
    pub layer: LayerConfig,
    pub arrays: Arrays,
    /// What it is given: where nothing is said, all outputs of the layer before it, or for the first one all that the program is called with.
    pub inputs: Option<Vec<Input>>,
}

/// What Keras does with the mask of a layer's input that this crate's layer does otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Masks {
    /// Nothing.
    Alike,
    /// It looks at absent steps too.
    Ignored,
    /// Recurrent: where it is given initial states it looks at absent steps too.
    IgnoredWithStates,
    /// It does something that this crate has not; the option that makes it so.
    Refused(&'static str),
}

/// Layers one after the other, each of which may read any before it.
#[derive(Debug)]
pub(super) struct Program {
    pub pieces: Vec<Piece>,
    /// Its outputs; where nothing is said, those of the last layer.
    pub outputs: Option<Vec<Input>>,
    pub masks: Masks,
    /// Whether what it gives is one number for each sample, which here is an axis of one.
    pub numbers: bool,
}

impl Program {
    /// Nothing yet.
    pub fn new() -> Self {
        Program { pieces: Vec::new(), outputs: None, masks: Masks::Alike, numbers: false }
    }

    /// One layer, with arrays in these groups.
    pub fn one(layer: impl Into<LayerConfig>, groups: &[&str]) -> Self {
        let mut program = Program::new();
        program.pieces.push(Piece { layer: layer.into(), arrays: Arrays::of(groups), inputs: None });
        program
    }

    /// Layers without arrays, each given what the one before it gives.
    pub fn chain(layers: Vec<LayerConfig>) -> Self {
        layers.into_iter().fold(Program::new(), Program::then)
    }

    /// The same with another layer behind it, which is given all that it gives.
    #[must_use]
    pub fn then(mut self, behind: impl Into<LayerConfig>) -> Self {
        let inputs = self.outputs.take();
        self.pieces.push(Piece { layer: behind.into(), arrays: Arrays::of(&[]), inputs });
        self
    }

    /// The same with what it does with masks.
    #[must_use]
    pub fn masks(self, masks: Masks) -> Self {
        Program { masks, ..self }
    }

    /// Adds a layer: its first output.
    pub fn add(&mut self, layer: impl Into<LayerConfig>, inputs: &[Input]) -> Input {
        self.add_with(layer, inputs, Arrays::of(&[]))
    }

    /// Adds a layer with arrays: its first output.
    pub fn add_with(&mut self, layer: impl Into<LayerConfig>, inputs: &[Input], arrays: Arrays) -> Input {
        self.pieces.push(Piece { layer: layer.into(), arrays, inputs: Some(inputs.to_vec()) });
        Input::Piece(self.pieces.len() - 1, 0)
    }

    /// The tensor under another sample shape.
    pub fn reshape(&mut self, input: Input, shape: &[usize]) -> Input {
        let shape = if shape.is_empty() { &[1] } else { shape };
        let shape: Vec<i64> = shape.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
        self.add(Reshape::new(&shape), &[input])
    }

    /// Puts another program in: its outputs for these inputs. It must say what its layers are given.
    pub fn include(&mut self, other: Program, inputs: &[Input]) -> Vec<Input> {
        let offset = self.pieces.len();
        let moved = |input: &Input| match *input {
            Input::Call(number) => inputs.get(number).copied(),
            Input::Piece(piece, output) => Some(Input::Piece(piece + offset, output)),
        };
        let mut last = inputs.to_vec();
        for (number, piece) in other.pieces.into_iter().enumerate() {
            let given = match &piece.inputs {
                None => last,
                Some(list) => list.iter().filter_map(moved).collect(),
            };
            self.pieces.push(Piece { inputs: Some(given), ..piece });
            last = vec![Input::Piece(offset + number, 0)];
        }
        match &other.outputs {
            None => last,
            Some(list) => list.iter().filter_map(moved).collect(),
        }
    }

    /// Only what some of its outputs need; those that are not wanted go.
    #[must_use]
    pub fn only(mut self, wanted: &BTreeSet<usize>) -> (Self, Vec<usize>) {
        let Some(outputs) = self.outputs.take() else { return (self, Vec::new()) };
        let kept: Vec<usize> = (0..outputs.len()).filter(|output| wanted.contains(output)).collect();
        let outputs: Vec<Input> = kept.iter().filter_map(|output| outputs.get(*output).copied()).collect();
        let mut needed = vec![false; self.pieces.len()];
        let mut open = outputs.clone();
        while let Some(input) = open.pop() {
            let Input::Piece(number, _) = input else { continue };
            let (Some(piece), Some(needed)) = (self.pieces.get(number), needed.get_mut(number)) else { continue };
            if !std::mem::replace(needed, true) {
                open.extend(piece.inputs.iter().flatten());
            }
        }
        let mut numbers = Vec::new();
        let mut next = 0usize;
        for needed in &needed {
            numbers.push(next);
            next += usize::from(*needed);
        }
        let moved = |input: &Input| match *input {
            Input::Piece(number, output) => Input::Piece(numbers.get(number).copied().unwrap_or(0), output),
            call => call,
        };
        let pieces = self.pieces.into_iter().zip(&needed).filter(|(_, needed)| **needed).map(|(piece, _)| Piece {
            inputs: piece.inputs.as_ref().map(|inputs| inputs.iter().map(moved).collect()),
            ..piece
        });
        let outputs = outputs.iter().map(moved).collect();
        (Program { pieces: pieces.collect(), outputs: Some(outputs), ..self }, kept)
    }

    /// Sets its outputs.
    #[must_use]
    pub fn giving(self, outputs: &[Input]) -> Self {
        Program { outputs: Some(outputs.to_vec()), ..self }
    }
}
