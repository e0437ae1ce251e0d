//! The matrix products of an operator with their sizes: a plan's report lists them, and its workspace has room for their partial sums.

use super::super::kernel::gemm::{Orientation, ProductShape};
use super::cell::{candidate_run, gradient_slots, input_runs, recurrent_run};
use super::space::Sizes;
use crate::dtype::DType;
use crate::rnn::{InputKind, Layout};

/// What a product belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    BackwardData,
    BackwardWeights,
}

/// A product of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) pass: Pass,
    pub(super) orientation: Orientation,
    pub(super) shape: ProductShape,
}

/// Which time loops have the products of a step as launches of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) forward: bool,
    pub(super) backward: bool,
}

/// The products of a layer; those of a backward pass too, which plans for inference have not. Products of heads have kernels of their
/// own. `gradient` is the type of the weights' gradients.
pub(super) fn products(sizes: &Sizes<'_>, gradient: DType, steps: Steps, layer: usize) -> Vec<Product> {
    let Sizes { descriptor, shape, .. } = *sizes;
    let (rows, batch) = (shape.seq_len * shape.batch, shape.batch);
    let (hidden, output, input) =
        (descriptor.hidden_size, descriptor.output_size(), descriptor.layer_input_size(layer));
    let (directions, gates) = (descriptor.num_directions(), descriptor.cell.gates() * hidden);
    let (slots, h_prev) = (gradient_slots(descriptor.cell) * hidden, sizes.h_prev.stride);
    let (recurrent, candidate) = (recurrent_run(descriptor).gates * hidden, candidate_run(descriptor));
    let (dense, features) = (descriptor.heads == 1, descriptor.input == InputKind::Features);

    // The caller's tensors alone may be batch-major.
    let groups = if layer == 0 && descriptor.layout == Layout::BatchMajor { batch } else { 1 };

    let mut all = Vec::new();
    let mut add = |name, pass, orientation, [m, n, k]: [usize; 3], strides, terms, count| {
        let groups = if ["W x", "dx", "dW"].contains(&name) { groups } else { 1 };
        let wide = match pass {
            Pass::BackwardWeights => gradient != sizes.dtype,
            _ => name != "dx",
        };
        let shape = ProductShape { m, n, k, strides, terms, count, groups, wide };
        all.push(Product { name, pass, orientation, shape });
    };
    let (nt, nn, tn) = (Orientation::Nt, Orientation::Nn, Orientation::Tn);
    if features {
        add("W x", Pass::Forward, nt, [rows, gates, input], [input, input], 1, directions);
    }
    if steps.forward && dense {
        add("R h", Pass::Forward, nt, [batch, recurrent, output], [h_prev, output], 1, directions);
        if candidate.is_some() {
            add("R_n q", Pass::Forward, nt, [batch, hidden, hidden], [hidden, hidden], 1, directions);
        }
    }
    if steps.forward && descriptor.proj_size.is_some() {
        add("P u", Pass::Forward, nt, [batch, output, hidden], [hidden, hidden], 1, directions);
    }
    if steps.backward && dense {
        add("R^T da", Pass::BackwardData, nn, [batch, output, recurrent], [slots, output], 1, directions);
        if candidate.is_some() {
            add("R_n^T da", Pass::BackwardData, nn, [batch, output, hidden], [slots, output], 1, directions);
        }
    }
    if steps.backward && descriptor.proj_size.is_some() {
        add("P^T dh", Pass::BackwardData, nn, [batch, hidden, output], [output, hidden], 1, directions);
    }
    if features {
        let terms = input_runs(descriptor.cell).count() * directions;
        add("dx", Pass::BackwardData, nn, [rows, input, gates * directions], [slots, input], terms, 1);
        for run in input_runs(descriptor.cell) {
            add("dW", Pass::BackwardWeights, tn, [run.gates * hidden, input, rows], [slots, input], 1, 1);
        }
    }
    if dense {
        add("dR", Pass::BackwardWeights, tn, [recurrent, output, rows], [slots, h_prev], 1, 1);
        if candidate.is_some() {
            add("dR_n", Pass::BackwardWeights, tn, [hidden, hidden, rows], [slots, hidden], 1, 1);
        }
    }
    if descriptor.proj_size.is_some() {
        add("dP", Pass::BackwardWeights, tn, [output, hidden, rows], [output, hidden], 1, 1);
    }
    all
}
