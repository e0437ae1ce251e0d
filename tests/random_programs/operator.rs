//! The operator and the operations of models: descriptors, plans, passes and calls with random sizes.

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::ops::{
    AttentionInputs, AttentionShape, IndexStatus, LossEntry, MaskOrder, MatMul, Orientation, SoftmaxMask, Strides,
    Workspace,
};
use fused_rnn::backend::pass::{Inputs, OutputGradients, infer, train};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{Device, ForwardMode, TensorMut, TensorRef, WeightGrad};
use fused_rnn::cell::CellKind;
use fused_rnn::nn::Loss;
use fused_rnn::rnn::{Bias, Direction, Layout, Memory, PaddedOutput, RnnDescriptor, RnnShape, WeightLayout};

use crate::arguments::{HUGE, number, rate, size, values};
use crate::common::Rng;
use crate::{Outcome, accepted, note_useful};

fn descriptor(rng: &mut Rng) -> RnnDescriptor {
    let mut descriptor = RnnDescriptor::new(rng.pick(&CellKind::ALL), size(rng), size(rng))
        .direction(rng.pick(&[Direction::Forward, Direction::Reverse, Direction::Bidirectional]))
        .bias(rng.pick(&[Bias::None, Bias::Single, Bias::Double]))
        .layout(rng.pick(&[Layout::SequenceMajor, Layout::BatchMajor]))
        .padded_output(rng.pick(&[PaddedOutput::Zero, PaddedOutput::Hold]));
    if rng.chance(0.2) {
        descriptor = descriptor.num_layers(if rng.chance(0.8) { 2 } else { size(rng) }).dropout(rate(rng));
    }
    if rng.chance(0.2) {
        descriptor = descriptor.heads(size(rng));
    }
    if rng.chance(0.1) {
        descriptor = descriptor.proj_size(Some(size(rng))).peepholes(rng.chance(0.5));
    }
    if rng.chance(0.1) {
        descriptor = descriptor.gate_clip(Some(number(rng))).cell_clip(Some(number(rng)));
    }
    if rng.chance(0.2) {
        let every = size(rng);
        descriptor = descriptor.memory(rng.pick(&[
            Memory::Checkpoints { every },
            Memory::Light { every },
            Memory::Within { bytes: every },
            Memory::Within { bytes: 1 << 20 },
        ]));
    }
    if rng.chance(0.1) {
        descriptor = descriptor.of_gates();
    }
    descriptor
}

fn threads(rng: &mut Rng) -> usize {
    if rng.chance(0.9) { 1 + rng.below(3) } else { rng.pick(&[0, 255, 65_535, 65_536, usize::MAX]) }
}

fn pass<B>(rng: &mut Rng, backend: &B, descriptor: &RnnDescriptor, shape: RnnShape) -> Outcome
where
    B: fused_rnn::backend::HostBackend<f32>,
{
    for mode in [ForwardMode::Inference, ForwardMode::Training] {
        if let Some(plan) = accepted(backend.plan(descriptor, shape, mode))? {
            let _ = backend.temp_space(&plan);
        }
    }
    let Some(layout) = accepted(WeightLayout::new(descriptor))? else { return Ok(()) };
    let Some(tensors) = accepted(shape.tensors(descriptor))? else { return Ok(()) };
    let x = tensors.x.iter().product::<usize>();
    if layout.len().max(x) > 1 << 16 {
        return Ok(());
    }
    let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let len = |rng: &mut Rng, len: usize| if rng.chance(0.97) { len } else { len + rng.below(3) };
    let inputs = Inputs {
        weights: {
            let len = len(rng, layout.len());
            single(values(rng, len))
        },
        x: {
            let len = len(rng, x);
            single(values(rng, len))
        },
        lengths: rng
            .chance(0.3)
            .then(|| (0..shape.batch).map(|_| if rng.chance(0.9) { 1 } else { rng.pick(&[0, u32::MAX]) }).collect()),
        resets: rng.chance(0.2).then(|| (0..shape.batch * shape.seq_len).map(|_| rng.below(256) as u8).collect()),
        dropout_seed: rng.bits(),
        ..Inputs::default()
    };
    accepted(infer(backend, descriptor, shape, &inputs))?;
    if accepted(train(backend, descriptor, shape, &inputs, &OutputGradients::default()))?.is_some() {
        note_useful();
    }
    Ok(())
}

fn recurrent(rng: &mut Rng) -> Outcome {
    let (descriptor, shape) = (descriptor(rng), RnnShape { seq_len: size(rng), batch: size(rng) });
    let _ = (
        descriptor.layer_input_size(size(rng)),
        descriptor.activations_of(size(rng)),
        descriptor.output_size(),
        descriptor.head_size(),
    );
    accepted(descriptor.validate())?;
    if rng.chance(0.3) {
        return pass(rng, &ReferenceBackend::<f32>::new(), &descriptor, shape);
    }
    let Some(backend) = accepted(CpuBackend::<f32>::with_threads(threads(rng)))? else { return Ok(()) };
    pass(rng, &backend, &descriptor, shape)
}

/// Sizes of operations: mostly such as fit the tensors of twelve elements.
fn small(rng: &mut Rng) -> usize {
    match rng.below(12) {
        0 => 0,
        1 => rng.pick(&[1 << 32, HUGE[0], 1 << 62, usize::MAX]),
        _ => 1 + rng.below(4),
    }
}

fn operations(rng: &mut Rng) -> Outcome {
    let device = if rng.chance(0.7) { Device::cpu() } else { Device::reference() };
    let x: Vec<f32> = values(rng, 12).into_iter().map(|v| v as f32).collect();
    let (mut y, mut z, mut rows, mut space) =
        (vec![0.0f32; 12], vec![0.0f32; 12], vec![0u32; 12], vec![0.0f32; 1 << 14]);
    let mut status = vec![0.0f64; fused_rnn::backend::ops::STATUS_LEN];
    let indices: Vec<u32> = (0..3)
        .map(|_| if rng.chance(0.8) { rng.below(3) as u32 } else { rng.pick(&[u32::MAX, u32::MAX - 1, 4]) })
        .collect();
    let (a, b, c, d) = (small(rng), small(rng), small(rng), small(rng));
    let grad = rng.pick(&[WeightGrad::Set, WeightGrad::Add]);
    let product = MatMul {
        count: d,
        orientation: rng.pick(&[Orientation::Nt, Orientation::Nn, Orientation::Tn]),
        m: a,
        n: b,
        k: c,
    };
    let shape = AttentionShape {
        batch: small(rng),
        heads: a,
        queries: b,
        keys: c,
        key_dim: d,
        value_dim: small(rng),
        causal: rng.chance(0.5),
    };
    let workspace = rng.pick(&[
        Workspace::MatMul(product),
        Workspace::SumAxis([a, b, c]),
        Workspace::Normalization { rows: a, columns: b },
        Workspace::Attention(shape),
        Workspace::AttentionGradient(shape),
        Workspace::Loss,
        Workspace::SumOfSquares,
    ]);
    let _ = device.workspace(workspace);
    let own = |len: usize| 0..len.min(12);
    fn of<T: fused_rnn::Stored>(values: &[T]) -> TensorRef<'_> {
        TensorRef::of(values)
    }
    fn to<T: fused_rnn::Stored>(values: &mut [T]) -> TensorMut<'_> {
        TensorMut::of(values)
    }
    // As long as the call says, where it can be.
    let len = |sizes: &[usize]| sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size)).unwrap_or(12);
    let done = match rng.below(20) {
        0 => device.matmul(
            product,
            1.0,
            of(&x[own(len(&[d, a, c]))]),
            of(&x[own(len(&[d, b, c]))]),
            to(&mut y[own(len(&[d, a, b]))]),
            grad,
            to(&mut space),
        ),
        1 => device.matmul_bias(
            product,
            of(&x[own(len(&[d, a, c]))]),
            of(&x[own(len(&[d, b, c]))]),
            of(&x[own(b)]),
            to(&mut y[own(len(&[d, a, b]))]),
            to(&mut space),
        ),
        2 => device.sum_axis(
            [a, b, c],
            1.0,
            of(&x[own(len(&[a, b, c]))]),
            to(&mut y[own(len(&[a, c]))]),
            grad,
            to(&mut space),
        ),
        3 => device.max_axis(
            [a, b, c],
            of(&x[own(len(&[a, b, c]))]),
            None,
            to(&mut y[own(len(&[a, c]))]),
            to(&mut rows[own(len(&[a, c]))]),
        ),
        4 => device.max_axis_gradient(
            [a, b, c],
            of(&x[own(len(&[a, c]))]),
            of(&vec![b as u32; len(&[a, c]).min(12)]),
            to(&mut y[own(len(&[a, b, c]))]),
        ),
        5 => {
            let layout = Strides {
                offset: d,
                strides: rng.pick(&[
                    [0, 0, 0, 1],
                    [isize::MIN, 1, 1, 1],
                    [isize::MAX, -1, 0, 1],
                    [12, 4, 2, 1],
                    [-6, -2, -1, 1],
                ]),
            };
            let dense =
                Strides { offset: 0, strides: [len(&[a, b, c]) as isize, len(&[b, c]) as isize, c as isize, 1] };
            device.strided_copy([1, a, b, c], of(&x), layout, to(&mut y), dense, grad)
        }
        6 => device.gather(a, of(&x), of(&indices), to(&mut y[own(len(&[a, 3]))]), None),
        7 => device.gather(
            a,
            of(&x),
            of(&indices),
            to(&mut y[own(len(&[a, 3]))]),
            Some(IndexStatus { status: to(&mut status), code: 1 }),
        ),
        8 => device.scatter_add(a, of(&indices), of(&x[own(len(&[a, 3]))]), to(&mut y), grad, None),
        9 => device.softmax(a, of(&x), SoftmaxMask { keys: Some((of(&x[own(b)]), c)), causal: Some(d) }, to(&mut y)),
        10 => device.attention(
            shape,
            1.0,
            AttentionInputs { query: of(&x), key: of(&x), value: of(&x), mask: None },
            to(&mut y),
            to(&mut z),
            to(&mut space),
        ),
        11 => device.layer_norm(a, number(rng), of(&x), None, None, to(&mut y), to(&mut z[own(b)])),
        12 => device.column_moments(a, of(&x), Some(of(&x[own(b)])), to(&mut y[own(a)]), to(&mut z[own(a)])),
        13 => device.batch_norm(a, number(rng), of(&x), of(&x[own(a)]), of(&x[own(a)]), None, None, to(&mut y)),
        14 => device.mask_not_equal(a, of(&x), number(rng), to(&mut y[own(b)])),
        15 => {
            let (mut inverse, mut hold, mut lengths, mut any) =
                (vec![0u32; 12], vec![0u32; 12], vec![0u32; b.min(12)], vec![0.0f32; b.min(12)]);
            let order = MaskOrder {
                rows: to(&mut rows),
                inverse: to(&mut inverse),
                hold: to(&mut hold),
                lengths: to(&mut lengths),
                any: to(&mut any),
            };
            device.mask_order(a, rng.chance(0.5), of(&x), order)
        }
        16 => device.hold_gradient(a, b, of(&vec![c as u32; a.min(12)]), of(&x), to(&mut y)),
        17 => device.indices(a, of(&x), to(&mut rows), None),
        18 => device.dropout(&fused_rnn::rnn::Dropout::new(0.5, 1), a, b, c, of(&x), to(&mut y)),
        _ => {
            let loss = rng.pick(&[
                Loss::MeanSquaredError,
                Loss::SparseCategoricalCrossentropy { from_logits: true },
                Loss::Huber { delta: -1.0 },
            ]);
            let entry = LossEntry { weight: number(rng), code: 1 };
            device.loss(
                loss,
                a,
                of(&x),
                of(&x),
                Some(of(&x[own(b)])),
                Some(to(&mut y)),
                entry,
                to(&mut status),
                to(&mut space),
            )
        }
    };
    if accepted(done)?.is_some() {
        note_useful();
    }
    Ok(())
}

pub fn program(rng: &mut Rng) -> Outcome {
    if rng.chance(0.5) { recurrent(rng) } else { operations(rng) }
}
