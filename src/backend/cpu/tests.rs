//! The backend against the oracle, and its promises about bits.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::{CpuBackend, CpuPlan};
use crate::backend::cpu::CpuElement;
use crate::backend::pass::{InputGradients, Inputs, OutputGradients, Outputs, infer, train};
use crate::backend::reference::ReferenceBackend;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, HostBackend, RecurrentBackend, Reserve, WeightGrad,
};
use crate::cell::{Activation, Activations, CellKind};
use crate::rnn::{
    Bias, Direction, ForgetGate, GruReset, InputKind, Layout, PaddedOutput, RnnDescriptor, RnnShape, WeightLayout,
};
use crate::simd::Isa;

/// Numbers that look random and are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    }

    fn vec<E: CpuElement>(&mut self, len: usize, scale: f64) -> Vec<E> {
        (0..len).map(|_| E::of(f64::from((self.unit() * scale) as f32))).collect()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn product(sizes: &[usize]) -> usize {
    sizes.iter().product()
}

/// A gradient that fades on its way to the first steps becomes zero, and is not carried on in denormal numbers, each of which takes a hundred times as long.
#[test]
fn gradients_that_fade_become_zero() {
    let backend = CpuBackend::<f32>::with_threads(2).unwrap();
    for cell in CellKind::ALL {
        for batch in [1, 3] {
            let descriptor = RnnDescriptor::new(cell, 2, 20);
            let shape = RnnShape { seq_len: 1500, batch };
            let mut numbers = Numbers(5);
            let weights: Vec<f32> = numbers.vec(WeightLayout::new(&descriptor).unwrap().len(), 0.3);
            let x: Vec<f32> = numbers.vec(shape.seq_len * batch * 2, 0.5);
            let inputs = Inputs { weights, x, h0: None, c0: None, lengths: None, resets: None, dropout_seed: 0 };
            let mut dy = vec![0.0; shape.seq_len * batch * 20];
            dy[(shape.seq_len - 1) * batch * 20..].fill(1.0);
            let gradients = OutputGradients { dy: Some(dy), dhn: None, dcn: None };
            let (_, gradients) = train(&backend, &descriptor, shape, &inputs, &gradients).unwrap();
            let dx = gradients.dx;
            assert!(dx.iter().rev().any(|dx| *dx != 0.0 && dx.abs() < 1e-20), "{cell}: it does not fade");
            assert!(dx[..2 * batch].iter().all(|dx| *dx == 0.0), "{cell}: {:?}", &dx[..2 * batch]);
            let denormal = dx.iter().filter(|dx| dx.is_subnormal()).count();
            assert!(denormal * 50 < dx.len(), "{cell}, batch {batch}: {denormal} of {} are denormal", dx.len());
        }
    }
}

/// The same of states that fade after the last input.
#[test]
fn states_that_fade_become_zero() {
    let backend = CpuBackend::<f32>::with_threads(2).unwrap();
    for cell in [CellKind::Rnn, CellKind::Lstm, CellKind::Gru] {
        for batch in [1, 3] {
            let descriptor = RnnDescriptor { bias: Bias::None, ..RnnDescriptor::new(cell, 2, 20) };
            let shape = RnnShape { seq_len: 400, batch };
            let mut numbers = Numbers(5);
            let weights: Vec<f32> = numbers.vec(WeightLayout::new(&descriptor).unwrap().len(), 0.1);
            let mut x: Vec<f32> = numbers.vec(shape.seq_len * batch * 2, 0.5);
            x[2 * batch..].fill(0.0);
            let inputs = Inputs { weights, x, h0: None, c0: None, lengths: None, resets: None, dropout_seed: 0 };
            let Outputs { y, cn, .. } = infer(&backend, &descriptor, shape, &inputs).unwrap();
            let cn = cn.unwrap_or_default();
            assert!(y.iter().any(|y| *y != 0.0 && y.abs() < 1e-20), "{cell}: it does not fade");
            assert!(!y.iter().chain(&cn).any(|y| y.is_subnormal()), "{cell}, batch {batch}");
            assert!(y[y.len() - 20 * batch..].iter().chain(&cn).all(|y| *y == 0.0), "{cell}, batch {batch}");
        }
    }
}

/// A single feature, whose weights are not packed where there is little to compute, has the bits of two of which the other is zero.
#[test]
fn a_feature_beside_zeros_is_that_feature_alone() {
    let backend = CpuBackend::<f32>::with_threads(2).unwrap();
    for cell in [CellKind::Lstm, CellKind::Gru, CellKind::Rnn] {
        for reset in [GruReset::After, GruReset::Before].into_iter().take(if cell == CellKind::Gru { 2 } else { 1 }) {
            for (seq_len, batch) in [(7, 1), (3, 5)] {
                let mut numbers = Numbers(3);
                let one = RnnDescriptor { reset, ..RnnDescriptor::new(cell, 1, 19) };
                let two = RnnDescriptor { input_size: 2, ..one.clone() };
                let shape = RnnShape { seq_len, batch };
                let inputs = |weights: Vec<f32>, x: Vec<f32>| Inputs {
                    weights,
                    x,
                    h0: None,
                    c0: None,
                    lengths: None,
                    resets: None,
                    dropout_seed: 0,
                };
                let gates = one.cell.gates() * one.hidden_size;
                let weights: Vec<f32> = numbers.vec(WeightLayout::new(&one).unwrap().len(), 0.5);
                let x: Vec<f32> = numbers.vec(seq_len * batch, 1.5);
                let beside_zero = |v: &[f32]| v.iter().flat_map(|v| [*v, 0.0]).collect::<Vec<f32>>();
                let wide = [beside_zero(&weights[..gates]), weights[gates..].to_vec()].concat();
                let expected = infer(&backend, &two, shape, &inputs(wide, beside_zero(&x))).unwrap();
                let found = infer(&backend, &one, shape, &inputs(weights, x)).unwrap();
                assert_eq!(found.y, expected.y, "{cell:?} {reset:?} {shape:?}");
            }
        }
    }
}

/// Everything that a pass reads, for any descriptor.
fn inputs<E: CpuElement>(
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    numbers: &mut Numbers,
) -> (Inputs<E>, OutputGradients<E>) {
    let tensors = shape.tensors(descriptor).unwrap();
    let weights = WeightLayout::new(descriptor).unwrap();
    let scale = 1.5 / (descriptor.hidden_size as f64).sqrt();
    let cell_state = descriptor.cell.has_cell_state();
    let (batch, seq_len) = (shape.batch, shape.seq_len);
    let lengths = numbers.chance(50).then(|| (0..batch).map(|_| 1 + numbers.below(seq_len as u64) as u32).collect());
    let resets = numbers.chance(40).then(|| (0..batch * seq_len).map(|_| u8::from(numbers.chance(20)) * 3).collect());
    let inputs = Inputs {
        weights: numbers.vec(weights.len(), scale),
        x: numbers.vec(product(&tensors.x), 1.5),
        h0: numbers.chance(60).then(|| numbers.vec(product(&tensors.h), 1.0)),
        c0: (cell_state && numbers.chance(60)).then(|| other_states(descriptor, numbers.vec(product(&tensors.c), 1.5))),
        lengths,
        resets,
        dropout_seed: numbers.bits(),
    };
    let gradients = OutputGradients {
        dy: numbers.chance(85).then(|| numbers.vec(product(&tensors.y), 1.0)),
        dhn: numbers.chance(60).then(|| numbers.vec(product(&tensors.h), 1.0)),
        dcn: (cell_state && numbers.chance(60)).then(|| numbers.vec(product(&tensors.c), 1.0)),
    };
    (inputs, gradients)
}

/// Random states beside h made such that a run could have left them: those that are above zero are.
fn other_states<E: CpuElement>(descriptor: &RnnDescriptor, mut states: Vec<E>) -> Vec<E> {
    let spec = descriptor.cell.spec();
    for (block, values) in states.chunks_mut(descriptor.hidden_size).enumerate() {
        if spec.positive.contains(&spec.states[1 + block % descriptor.cell.other_states()]) {
            values.iter_mut().for_each(|v| *v = E::of(0.2) + v.abs());
        }
    }
    states
}

/// A descriptor with any options, and ugly sizes.
fn any_descriptor(numbers: &mut Numbers) -> (RnnDescriptor, RnnShape) {
    let sizes = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50, 65];
    let size = |numbers: &mut Numbers, most: u64| sizes[numbers.below(most) as usize];
    let cell = CellKind::ALL[numbers.below(CellKind::ALL.len() as u64) as usize];
    let mut d = RnnDescriptor::new(cell, size(numbers, 15), size(numbers, 15));
    d.num_layers = 1 + numbers.below(3) as usize;
    d.direction = [Direction::Forward, Direction::Reverse, Direction::Bidirectional][numbers.below(3) as usize];
    d.bias = [Bias::None, Bias::Single, Bias::Double][numbers.below(3) as usize];
    d.layout = [Layout::SequenceMajor, Layout::BatchMajor][numbers.below(2) as usize];
    let activation = |numbers: &mut Numbers| Activation::ALL[numbers.below(13) as usize];
    let set = |numbers: &mut Numbers| Activations {
        gate: if numbers.chance(60) { Activation::Sigmoid } else { activation(numbers) },
        state: if numbers.chance(60) { Activation::Tanh } else { activation(numbers) },
        output: if numbers.chance(60) { Activation::Tanh } else { activation(numbers) },
    };
    if numbers.chance(60) {
        d.activations = set(numbers);
    }
    if d.direction == Direction::Bidirectional && numbers.chance(30) {
        d.reverse_activations = Some(set(numbers));
    }
    if cell == CellKind::Gru && numbers.chance(50) {
        d.reset = GruReset::Before;
    }
    if cell == CellKind::Slstm && numbers.chance(50) {
        d.forget_gate = ForgetGate::Exponential;
    }
    if numbers.chance(30) {
        d.dropout = [0.1, 0.5, 0.9, 1.0][numbers.below(4) as usize];
    }
    if numbers.chance(30) {
        d.gate_clip = Some(0.3 + numbers.unit().abs());
    }
    if numbers.chance(50) {
        d.padded_output = PaddedOutput::Hold;
    }
    if cell == CellKind::Lstm {
        if d.hidden_size > 1 && numbers.chance(30) {
            d.proj_size = Some(1 + numbers.below(d.hidden_size as u64 - 1) as usize);
        }
        d.peepholes = numbers.chance(30);
        d.coupled_input_forget = numbers.chance(30);
        if numbers.chance(30) {
            d.cell_clip = Some(0.2 + numbers.unit().abs());
        }
    }
    if d.proj_size.is_none() && numbers.chance(40) {
        let divisors: Vec<usize> = (2..=d.hidden_size).filter(|n| d.hidden_size.is_multiple_of(*n)).collect();
        if !divisors.is_empty() {
            d.heads = divisors[numbers.below(divisors.len() as u64) as usize];
        }
    }
    if d.num_layers == 1 && numbers.chance(30) {
        d = d.of_gates();
    }
    (d, RnnShape { seq_len: size(numbers, 7), batch: size(numbers, 12) })
}

/// Largest difference, relative to the largest magnitude or one; infinite where either is not a number.
fn distance<E: CpuElement>(got: &[E], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let largest = wanted.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    got.iter().zip(wanted).fold(0.0, |worst, (g, w)| {
        let difference = (g.wide() - w).abs() / largest;
        if difference.is_nan() { f64::INFINITY } else { difference.max(worst) }
    })
}

fn widen<E: CpuElement>(values: &[E]) -> Vec<f64> {
    values.iter().map(|v| v.wide()).collect()
}

type Pass<E> = (Outputs<E>, InputGradients<E>);

fn worst<E: CpuElement, F: CpuElement>(got: &Pass<E>, wanted: &Pass<F>) -> (f64, &'static str) {
    let mut worst = (0.0, "");
    let none: Vec<E> = vec![];
    let none_wide: Vec<F> = vec![];
    let pairs = [
        ("y", &got.0.y, &wanted.0.y),
        ("hn", &got.0.hn, &wanted.0.hn),
        ("cn", got.0.cn.as_ref().unwrap_or(&none), wanted.0.cn.as_ref().unwrap_or(&none_wide)),
        ("dx", &got.1.dx, &wanted.1.dx),
        ("dh0", &got.1.dh0, &wanted.1.dh0),
        ("dc0", got.1.dc0.as_ref().unwrap_or(&none), wanted.1.dc0.as_ref().unwrap_or(&none_wide)),
        ("dweights", &got.1.dweights, &wanted.1.dweights),
    ];
    for (name, got, wanted) in pairs {
        let distance = distance(got, &widen(wanted));
        if distance > worst.0 {
            worst = (distance, name);
        }
    }
    worst
}

fn bits<E: CpuElement>(pass: &Pass<E>) -> Vec<u64> {
    let (outputs, gradients) = pass;
    [
        Some(&outputs.y),
        Some(&outputs.hn),
        outputs.cn.as_ref(),
        Some(&gradients.dx),
        Some(&gradients.dh0),
        gradients.dc0.as_ref(),
        Some(&gradients.dweights),
    ]
    .into_iter()
    .flatten()
    .flatten()
    .map(|v| v.wide().to_bits())
    .collect()
}

/// In f64, where rounding cannot hide a wrong equation. `tests/operator/backends/` holds f32 to a tolerance derived from each problem.
/// The same problems every time, unless `PROPTEST_RNG_SEED` says otherwise; `PROPTEST_CASES` of them, or 250.
#[test]
fn agrees_with_the_oracle_on_any_descriptor() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(250);
    let mut config = Config { cases, failure_persistence: None, ..Config::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(20);
    }
    let mut runner = TestRunner::new(config);
    let reference = ReferenceBackend::<f64>::new();
    let wide = CpuBackend::<f64>::new();
    runner
        .run(&any::<u64>().no_shrink(), |seed| {
            let mut numbers = Numbers(seed);
            let (descriptor, shape) = any_descriptor(&mut numbers);
            let (inputs, gradients) = inputs::<f64>(&descriptor, shape, &mut numbers);
            let wanted = train(&reference, &descriptor, shape, &inputs, &gradients).unwrap();
            // Unbounded functions may run away, and then errors with them.
            let all = [&wanted.0.y, &wanted.1.dx, &wanted.1.dh0, &wanted.1.dweights];
            prop_assume!(all.into_iter().flatten().all(|v| v.abs() < 1e6));
            let got = train(&wide, &descriptor, shape, &inputs, &gradients).unwrap();
            let (error, tensor) = worst(&got, &wanted);
            prop_assert!(error <= 1e-11, "{error:e} in {tensor}: {descriptor:?} {shape:?}");

            let plain = Inputs { dropout_seed: 0, ..inputs.clone() };
            let wanted_outputs = infer(&reference, &descriptor, shape, &plain).unwrap();
            let outputs = infer(&wide, &descriptor, shape, &plain).unwrap();
            prop_assert!(distance(&outputs.y, &wanted_outputs.y) <= 1e-11, "y of {descriptor:?} {shape:?}");
            prop_assert!(distance(&outputs.hn, &wanted_outputs.hn) <= 1e-11, "hn of {descriptor:?} {shape:?}");
            if let (Some(got), Some(wanted)) = (&outputs.cn, &wanted_outputs.cn) {
                prop_assert!(distance(got, wanted) <= 1e-11, "cn of {descriptor:?} {shape:?}");
            }

            Ok(())
        })
        .unwrap();
}

/// Large enough for threads: every product and both time loops are divided.
fn large(cell: CellKind) -> (RnnDescriptor, RnnShape) {
    let mut descriptor = RnnDescriptor::new(cell, 40, 100);
    descriptor.num_layers = 2;
    descriptor.direction = Direction::Bidirectional;
    (descriptor, RnnShape { seq_len: 19, batch: 61 })
}

#[test]
fn same_bits_for_any_number_of_threads_and_every_time() {
    for cell in CellKind::ALL {
        for before in [false, true] {
            let (mut descriptor, shape) = large(cell);
            if before && cell == CellKind::Gru {
                descriptor.reset = GruReset::Before;
            }
            if before && cell == CellKind::Lstm {
                descriptor.proj_size = Some(70);
            } else if before {
                descriptor.heads = if cell == CellKind::Rnn { 100 } else { 4 };
            }
            let mut numbers = Numbers(7);
            let (mut inputs, gradients) = inputs::<f32>(&descriptor, shape, &mut numbers);
            inputs.lengths = before.then(|| (0..61).map(|b| 1 + b * 7 % 19).collect());
            let run = |threads| {
                let backend = CpuBackend::<f32>::with_threads(threads).unwrap();
                bits(&train(&backend, &descriptor, shape, &inputs, &gradients).unwrap())
            };
            let one = run(1);
            for threads in [1, 2, 3, 7] {
                assert!(one == run(threads), "{cell} with {threads} threads");
            }
        }
    }
}

/// One long sequence: every step's product is divided by columns.
#[test]
fn same_bits_for_any_number_of_threads_with_one_sequence() {
    for cell in CellKind::ALL {
        let mut descriptor = RnnDescriptor::new(cell, 64, 600);
        if cell == CellKind::Gru {
            descriptor.reset = GruReset::Before;
        }
        let shape = RnnShape { seq_len: 100, batch: 1 };
        let (mut inputs, gradients) = inputs::<f32>(&descriptor, shape, &mut Numbers(11));
        inputs.lengths = None;
        let run = |threads| {
            let backend = CpuBackend::<f32>::with_threads(threads).unwrap();
            bits(&train(&backend, &descriptor, shape, &inputs, &gradients).unwrap())
        };
        let one = run(1);
        for threads in [2, 3, 7] {
            assert!(one == run(threads), "{cell} with {threads} threads");
        }
    }
}

/// Few sequences in both directions, which threads compute at once.
#[test]
fn same_bits_with_both_directions_at_once() {
    for cell in CellKind::ALL {
        for (batch, lengths, layout) in
            [(1, false, Layout::SequenceMajor), (5, true, Layout::BatchMajor), (9, false, Layout::SequenceMajor)]
        {
            let mut descriptor = RnnDescriptor::new(cell, 40, 100);
            (descriptor.num_layers, descriptor.direction) = (2, Direction::Bidirectional);
            descriptor.layout = layout;
            let shape = RnnShape { seq_len: 61, batch };
            let (mut inputs, gradients) = inputs::<f32>(&descriptor, shape, &mut Numbers(17));
            inputs.lengths = lengths.then(|| (0..batch as u32).map(|b| 1 + b * 7 % 61).collect());
            let run = |threads| {
                let backend = CpuBackend::<f32>::with_threads(threads).unwrap();
                let plan = backend.plan(&descriptor, shape, ForwardMode::Training).unwrap();
                assert_eq!(threads > 1, backend.describe(&plan).contains("both directions at once"));
                let plain = Inputs { dropout_seed: 0, ..inputs.clone() };
                let outputs = infer(&backend, &descriptor, shape, &plain).unwrap();
                let mut all = bits(&train(&backend, &descriptor, shape, &inputs, &gradients).unwrap());
                all.extend(bits(&(outputs, InputGradients::default())));
                all
            };
            let one = run(1);
            for threads in [2, 3, 7] {
                assert!(one == run(threads), "{cell}, {batch} sequences, {threads} threads");
            }
        }
    }
}

#[test]
fn same_bits_with_every_instruction_set() {
    for seed in 0..40 {
        let mut numbers = Numbers(seed);
        let (descriptor, shape) = any_descriptor(&mut numbers);
        let (inputs, gradients) = inputs::<f32>(&descriptor, shape, &mut numbers);
        let run = |isa| {
            let backend = CpuBackend::<f32>::with_isa(isa, 1).unwrap();
            bits(&train(&backend, &descriptor, shape, &inputs, &gradients).unwrap())
        };
        let best = run(Isa::detect().without_tiles());
        for isa in Isa::all_fused() {
            assert!(best == run(isa), "{} differs: {descriptor:?} {shape:?}", isa.name());
        }
    }
}

/// The matrix unit, where this machine has one: near the oracle as vectors are, with the same bits for any number of threads, and for a sequence whichever others have
/// ended.
#[test]
fn the_matrix_unit_agrees_with_the_oracle() {
    let isa = Isa::detect();
    if !isa.has_tiles() {
        println!("SKIPPED: this processor has no matrix unit (AMX)");
        return;
    }
    for (case, cell) in CellKind::ALL.into_iter().enumerate() {
        // The first with steps that take their inputs, the second without, divided by sequences on few threads; the last divided by units.
        let cases = [(70, 97, 37, false), (5, 100, 40, false), (5, 100, 16, true), (130, 150, 17, true)];
        for (input, hidden, batch, options) in cases {
            let mut descriptor = RnnDescriptor::new(cell, input, hidden);
            (descriptor.num_layers, descriptor.direction) = (2, Direction::Bidirectional);
            if options && cell == CellKind::Gru {
                descriptor.reset = GruReset::Before;
            }
            if options && cell == CellKind::Lstm {
                (descriptor.proj_size, descriptor.coupled_input_forget) = (Some(hidden * 3 / 4), true);
            }
            let shape = RnnShape { seq_len: 7, batch };
            let mut numbers = Numbers(case as u64);
            let (mut inputs, gradients) = inputs::<f32>(&descriptor, shape, &mut numbers);
            inputs.lengths = options.then(|| (0..batch as u32).map(|b| 1 + b * 5 % 7).collect());
            let run = |isa, threads| {
                let backend = CpuBackend::<f32>::with_isa(isa, threads).unwrap();
                train(&backend, &descriptor, shape, &inputs, &gradients).unwrap()
            };
            let double = |values: &Vec<f32>| widen(values);
            let wide = Inputs {
                weights: double(&inputs.weights),
                x: double(&inputs.x),
                h0: inputs.h0.as_ref().map(double),
                c0: inputs.c0.as_ref().map(double),
                lengths: inputs.lengths.clone(),
                resets: inputs.resets.clone(),
                dropout_seed: inputs.dropout_seed,
            };
            let wide_gradients = OutputGradients {
                dy: gradients.dy.as_ref().map(double),
                dhn: gradients.dhn.as_ref().map(double),
                dcn: gradients.dcn.as_ref().map(double),
            };
            let oracle = ReferenceBackend::<f64>::new();
            let wanted = train(&oracle, &descriptor, shape, &wide, &wide_gradients).unwrap();
            let (by_tiles, by_vectors) = (run(isa, 1), run(isa.without_tiles(), 1));
            let (error, name) = worst(&by_tiles, &wanted);
            let (of_vectors, _) = worst(&by_vectors, &wanted);
            let what = format!("{cell} {input} to {hidden}, {batch} sequences");
            assert!(error <= 2.0 * of_vectors + 1e-6, "{what}: {name} {error:e}, by vectors {of_vectors:e}");
            assert!(bits(&by_tiles) != bits(&by_vectors), "{what}: the unit was not used");
            for threads in [2, 3, 5] {
                assert!(bits(&by_tiles) == bits(&run(isa, threads)), "{what}, {threads} threads");
            }
            let backend = CpuBackend::<f32>::with_isa(isa, 2).unwrap();
            let plan = backend.plan(&descriptor, shape, ForwardMode::Inference).unwrap();
            let packed = backend.with_weights(&plan, &inputs.weights).unwrap();
            let (trained, _) = by_tiles;
            let inferred = infer_packed(&backend, &packed, &inputs, &trained).unwrap();
            let of_outputs = |outputs: Outputs<f32>| bits(&(outputs, InputGradients::default()));
            assert!(of_outputs(inferred) == of_outputs(trained), "{what}, packed weights");
        }
    }
}

/// A step with many sequences is computed by groups of units, one with a single sequence is not: what a sequence gives does not depend on it.
#[test]
fn same_bits_whatever_else_is_in_the_batch() {
    for seed in 0..80 {
        let mut numbers = Numbers(seed);
        let (mut descriptor, _) = any_descriptor(&mut numbers);
        let shape = RnnShape { seq_len: 5, batch: 11 };
        descriptor.hidden_size = descriptor.hidden_size.max(28);
        (descriptor.heads, descriptor.proj_size, descriptor.dropout) = (1, None, 0.0);
        descriptor.layout = Layout::SequenceMajor;
        if descriptor.input == InputKind::Gates {
            descriptor = descriptor.of_gates();
        }
        let (inputs, _) = inputs::<f32>(&descriptor, shape, &mut numbers);
        let backend = CpuBackend::<f32>::with_threads(1).unwrap();
        let of_outputs = |outputs: &Outputs<f32>| bits(&(outputs.clone(), InputGradients::default()));
        let run = |shape, inputs: &Inputs<f32>| {
            let outputs = infer(&backend, &descriptor, shape, inputs).unwrap();
            let trained = train(&backend, &descriptor, shape, inputs, &OutputGradients::default()).unwrap().0;
            assert!(of_outputs(&outputs) == of_outputs(&trained), "{descriptor:?} {shape:?}");
            outputs
        };
        let all = run(shape, &inputs);
        for b in 0..shape.batch {
            // Every tensor has its sequences one after another, within steps or layers.
            fn of<E: Copy>(b: usize, batch: usize, outer: usize, data: &[E]) -> Vec<E> {
                let width = data.len() / outer / batch;
                data.chunks_exact(width).skip(b).step_by(batch).flatten().copied().collect()
            }
            let layers = descriptor.num_layers * descriptor.num_directions();
            let steps = |data: &[f32]| of(b, shape.batch, shape.seq_len, data);
            let states = |data: &Vec<f32>| of(b, shape.batch, layers, data);
            let one = Inputs {
                weights: inputs.weights.clone(),
                x: steps(&inputs.x),
                h0: inputs.h0.as_ref().map(states),
                c0: inputs.c0.as_ref().map(states),
                lengths: inputs.lengths.as_ref().map(|lengths| vec![lengths[b]]),
                resets: inputs.resets.as_ref().map(|resets| of(b, shape.batch, shape.seq_len, resets)),
                dropout_seed: inputs.dropout_seed,
            };
            let got = run(RnnShape { batch: 1, ..shape }, &one);
            let wanted = Outputs { y: steps(&all.y), hn: states(&all.hn), cn: all.cn.as_ref().map(states) };
            assert!(of_outputs(&got) == of_outputs(&wanted), "sequence {b} of {descriptor:?}");
        }
    }
}

/// Inference with a plan that has its weights, twice, into a workspace of anything.
fn infer_packed(
    backend: &CpuBackend<f32>,
    plan: &CpuPlan,
    inputs: &Inputs<f32>,
    like: &Outputs<f32>,
) -> crate::Result<Outputs<f32>> {
    let mut outputs = like.clone();
    for _ in 0..2 {
        let mut workspace = vec![f32::NAN; backend.temp_space(plan).workspace];
        backend.forward(
            plan,
            ForwardArgs::<CpuBackend<f32>> {
                weights: &[],
                x: &inputs.x,
                h0: inputs.h0.as_deref(),
                c0: inputs.c0.as_deref(),
                lengths: inputs.lengths.as_deref(),
                resets: inputs.resets.as_deref(),
                y: &mut outputs.y,
                hn: Some(&mut outputs.hn),
                cn: outputs.cn.as_deref_mut(),
                workspace: &mut workspace,
                dropout_seed: 0,
            },
        )?;
    }
    Ok(outputs)
}

#[test]
fn packed_weights_give_the_same_bits() {
    for seed in 0..80 {
        let mut numbers = Numbers(seed + 500);
        let (mut descriptor, shape) = any_descriptor(&mut numbers);
        descriptor.dropout = 0.0;
        let (inputs, _) = inputs::<f32>(&descriptor, shape, &mut numbers);
        let backend = CpuBackend::<f32>::with_threads(1 + seed as usize % 3).unwrap();
        let wanted = infer(&backend, &descriptor, shape, &inputs).unwrap();
        let plan = backend.plan(&descriptor, shape, ForwardMode::Inference).unwrap();
        let packed = backend.with_weights(&plan, &inputs.weights).unwrap();
        assert!(backend.temp_space(&packed).workspace < backend.temp_space(&plan).workspace);
        let got = infer_packed(&backend, &packed.clone(), &inputs, &wanted).unwrap();
        let of_outputs = |outputs: Outputs<f32>| bits(&(outputs, InputGradients::default()));
        assert!(of_outputs(got) == of_outputs(wanted), "{descriptor:?} {shape:?}");
    }
}

#[cfg(feature = "model")]
#[test]
fn devices_pack_weights_or_say_that_they_do_not() {
    use crate::backend::device::{Device, OnDevice, Plan};

    let (descriptor, shape) = (RnnDescriptor::new(CellKind::Gru, 3, 4), RnnShape { seq_len: 1, batch: 1 });
    let weights = vec![0.25f32; WeightLayout::new(&descriptor).unwrap().len()];
    let run = |device: &Device, plan: &Plan, weights: &[f32]| {
        let weights = device.tensor("weights", weights).unwrap();
        let x = device.tensor("x", &[0.5f32, -1.0, 2.0]).unwrap();
        let mut y = device.allocate("y", 4).unwrap();
        let mut workspace = device.allocate("workspace", plan.temp_space().workspace).unwrap();
        let args = ForwardArgs::<OnDevice> {
            weights: weights.view(),
            x: x.view(),
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            y: y.view_mut(),
            hn: None,
            cn: None,
            workspace: workspace.view_mut(),
            dropout_seed: 0,
        };
        device.forward(plan, args).map(|()| device.read::<f32>(y.view()).unwrap())
    };
    let device = Device::cpu();
    let plan = device.plan(&descriptor, shape, ForwardMode::Inference).unwrap();
    let on_device = device.tensor("weights", &weights).unwrap();
    let packed = device.with_weights(&plan, on_device.view()).unwrap();
    assert_eq!(run(&device, &packed, &[]).unwrap(), run(&device, &plan, &weights).unwrap());
    assert!(run(&device, &packed, &weights).unwrap_err().to_string().contains("empty slice"));

    let device = Device::reference();
    let plan = device.plan(&descriptor, shape, ForwardMode::Inference).unwrap();
    let refused = device.with_weights(&plan, on_device.view()).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("reference") && refused.contains("in every call"), "{refused}");
}

/// A wide input makes the first layer large, not those above it.
#[test]
fn packed_weights_are_as_large_as_their_layers() {
    let mut descriptor = RnnDescriptor::new(CellKind::Lstm, 5000, 32);
    descriptor.num_layers = 6;
    let weights = vec![0.0f32; WeightLayout::new(&descriptor).unwrap().len()];
    let backend = CpuBackend::<f32>::new();
    let plan = backend.plan(&descriptor, RnnShape { seq_len: 1, batch: 1 }, ForwardMode::Inference).unwrap();
    let packed = backend.with_weights(&plan, &weights).unwrap();
    let bytes = packed.packed.unwrap().bytes();
    assert!(bytes < 3 * size_of_val(&weights[..]), "{bytes} bytes for {} weights", weights.len());
}

#[test]
fn packed_weights_are_for_their_plan() {
    let (descriptor, shape) = (RnnDescriptor::new(CellKind::Lstm, 3, 4), RnnShape { seq_len: 2, batch: 1 });
    let (mut inputs, _) = inputs::<f32>(&descriptor, shape, &mut Numbers(3));
    inputs.lengths = None;
    let backend = CpuBackend::<f32>::with_threads(2).unwrap();
    let plan = backend.plan(&descriptor, shape, ForwardMode::Inference).unwrap();
    let says = |error: crate::Error, what: &[&str]| {
        let text = error.to_string();
        assert!(what.iter().all(|what| text.contains(what)), "{text}");
    };
    let short = &inputs.weights[1..];
    says(backend.with_weights(&plan, short).unwrap_err(), &["weights", "144", "143"]);
    let training = backend.plan(&descriptor, shape, ForwardMode::Training).unwrap();
    says(backend.with_weights(&training, &inputs.weights).unwrap_err(), &["mode", "Inference", "Training"]);

    let wanted = infer(&backend, &descriptor, shape, &inputs).unwrap();
    let packed = backend.with_weights(&plan, &inputs.weights).unwrap();
    // As every plan without weights, so those with them: given to `infer`, which gives weights, it is refused.
    let mut workspace = vec![0.0; backend.temp_space(&packed).workspace];
    let mut outputs = wanted.clone();
    let args = ForwardArgs::<CpuBackend<f32>> {
        weights: &inputs.weights,
        x: &inputs.x,
        h0: None,
        c0: None,
        lengths: None,
        resets: None,
        y: &mut outputs.y,
        hn: None,
        cn: None,
        workspace: &mut workspace,
        dropout_seed: 0,
    };
    says(backend.forward(&packed, args).unwrap_err(), &["weights", "none", "144", "empty slice"]);
    let other = CpuBackend::<f32>::with_threads(3).unwrap();
    says(infer_packed(&other, &packed, &inputs, &wanted).unwrap_err(), &["plan", "3 threads", "2 threads"]);
    let of_no_weights = infer_packed(&backend, &plan, &inputs, &wanted).unwrap_err();
    says(of_no_weights, &["weights", "144", "got 0"]);
}

/// `pass` fills its workspaces with NaN before every call; this one also checks that a second call into used buffers, and
/// adding instead of setting, give what they must.
#[test]
fn buffers_may_hold_anything() {
    for seed in 0..60 {
        let mut numbers = Numbers(1000 + seed);
        let (descriptor, shape) = any_descriptor(&mut numbers);
        let (inputs, gradients) = inputs::<f64>(&descriptor, shape, &mut numbers);
        let backend = CpuBackend::<f64>::new();
        let first = train(&backend, &descriptor, shape, &inputs, &gradients).unwrap();
        let added = with_garbage(&backend, &descriptor, shape, &inputs, &gradients, 2.0);
        assert_eq!(first.0, added.0, "{descriptor:?} {shape:?}");
        assert_eq!(first.1.dx, added.1.dx, "{descriptor:?} {shape:?}");
        assert_eq!(first.1.dh0, added.1.dh0, "{descriptor:?} {shape:?}");
        let wanted: Vec<f64> = first.1.dweights.iter().map(|v| v + 2.0).collect();
        assert!(distance(&added.1.dweights, &wanted) < 1e-13, "{descriptor:?} {shape:?}");
    }
}

fn with_garbage<E: CpuElement, B: HostBackend<E>>(
    backend: &B,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    inputs: &Inputs<E>,
    gradients: &OutputGradients<E>,
    garbage: f64,
) -> Pass<E> {
    let tensors = shape.tensors(descriptor).unwrap();
    let plan = backend.plan(descriptor, shape, ForwardMode::Training).unwrap();
    let space = backend.temp_space(&plan);
    let garbage_vec = |len: usize| vec![E::of(garbage); len];
    let cell_state = descriptor.cell.has_cell_state();
    let state = |sizes: &[usize; 3]| cell_state.then(|| garbage_vec(product(sizes)));
    let mut workspace = garbage_vec(space.workspace);
    let mut outputs =
        Outputs { y: garbage_vec(product(&tensors.y)), hn: garbage_vec(product(&tensors.h)), cn: state(&tensors.c) };
    let args = ForwardArgs::<B> {
        weights: &inputs.weights,
        x: &inputs.x,
        h0: inputs.h0.as_deref(),
        c0: inputs.c0.as_deref(),
        lengths: inputs.lengths.as_deref(),
        resets: inputs.resets.as_deref(),
        y: &mut outputs.y,
        hn: Some(&mut outputs.hn),
        cn: outputs.cn.as_deref_mut(),
        workspace: &mut workspace,
        dropout_seed: inputs.dropout_seed,
    };
    let reserve = backend.forward_training(&plan, args, Reserve::new(garbage_vec(space.reserve))).unwrap();
    let mut result = InputGradients {
        dx: garbage_vec(product(&tensors.x)),
        dh0: garbage_vec(product(&tensors.h)),
        dc0: state(&tensors.c),
        dweights: garbage_vec(inputs.weights.len()),
    };
    let args = BackwardDataArgs::<B> {
        weights: &inputs.weights,
        x: &inputs.x,
        y: &outputs.y,
        h0: inputs.h0.as_deref(),
        c0: inputs.c0.as_deref(),
        lengths: inputs.lengths.as_deref(),
        resets: inputs.resets.as_deref(),
        dy: gradients.dy.as_deref(),
        dhn: gradients.dhn.as_deref(),
        dcn: gradients.dcn.as_deref(),
        dx: Some(&mut result.dx),
        dh0: Some(&mut result.dh0),
        dc0: result.dc0.as_deref_mut(),
        workspace: &mut workspace,
    };
    let mut reserve = backend.backward_data(&plan, args, reserve).unwrap();
    let args = BackwardWeightsArgs::<B> {
        x: &inputs.x,
        y: &outputs.y,
        h0: inputs.h0.as_deref(),
        c0: inputs.c0.as_deref(),
        lengths: inputs.lengths.as_deref(),
        resets: inputs.resets.as_deref(),
        dweights: &mut result.dweights,
        workspace: &mut workspace,
    };
    backend.backward_weights(&plan, args, &mut reserve, WeightGrad::Add).unwrap();
    (outputs, result)
}

/// A plan may come from a backend of another element type, with other threads or vectors: the sizes are those of the backend that
/// computes, and so are the bits; a workspace of the plan's own backend is an error where it is too small.
#[test]
fn plans_of_other_backends() {
    fn forward<E: CpuElement>(
        backend: &CpuBackend<E>,
        plan: &CpuPlan,
        inputs: &Inputs<E>,
        workspace: usize,
    ) -> crate::Result<Vec<E>> {
        let mut y = vec![E::zero(); product(&plan.tensors().y)];
        let args = ForwardArgs::<CpuBackend<E>> {
            weights: &inputs.weights,
            x: &inputs.x,
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            y: &mut y,
            hn: None,
            cn: None,
            workspace: &mut vec![E::of(f64::NAN); workspace],
            dropout_seed: 0,
        };
        backend.forward(plan, args)?;
        Ok(y)
    }

    fn check<E: CpuElement>(backend: &CpuBackend<E>, other: &CpuPlan, descriptor: &RnnDescriptor) {
        let shape = other.shape();
        let (inputs, _) = inputs::<E>(descriptor, shape, &mut Numbers(5));
        let own = backend.plan(descriptor, shape, ForwardMode::Inference).unwrap();
        let needed = backend.temp_space(&own).workspace;
        assert_eq!(backend.temp_space(other), backend.temp_space(&own));
        let expected = forward(backend, &own, &inputs, needed).unwrap();
        assert!(forward(backend, other, &inputs, needed).unwrap() == expected, "{backend:?} {descriptor:?}");
        assert!(forward(backend, other, &inputs, needed - 1).is_err());
    }

    let sets = Isa::all_fused();
    for descriptor in [RnnDescriptor::lstm(5, 33), RnnDescriptor::gru(40, 7)] {
        let shape = RnnShape { seq_len: 6, batch: 3 };
        let singles: Vec<_> =
            sets.iter().enumerate().map(|(i, isa)| CpuBackend::<f32>::with_isa(*isa, i + 1).unwrap()).collect();
        let doubles: Vec<_> =
            sets.iter().enumerate().map(|(i, isa)| CpuBackend::<f64>::with_isa(*isa, 5 - i).unwrap()).collect();
        let mut plans = Vec::new();
        plans.extend(singles.iter().map(|backend| backend.plan(&descriptor, shape, ForwardMode::Inference).unwrap()));
        plans.extend(doubles.iter().map(|backend| backend.plan(&descriptor, shape, ForwardMode::Inference).unwrap()));
        for plan in &plans {
            singles.iter().for_each(|backend| check(backend, plan, &descriptor));
            doubles.iter().for_each(|backend| check(backend, plan, &descriptor));
        }
    }
}

#[test]
fn refuses_what_it_cannot_do() {
    assert!(CpuBackend::<f32>::with_threads(0).is_err());
    let backend = CpuBackend::<f64>::new();
    for (input, hidden, seq_len) in [(1 << 57, 1, 1), (1 << 50, 1 << 8, 1), (1, 1, 1 << 40)] {
        let shape = RnnShape { seq_len, batch: 1 };
        assert!(backend.plan(&RnnDescriptor::lstm(input, hidden), shape, ForwardMode::Training).is_err());
    }
}

/// Inference keeps a chunk of gates, whatever the length: of every further step only its number and the number of its sequences are kept.
#[test]
fn inference_needs_no_more_for_longer_sequences() {
    let backend = CpuBackend::<f32>::with_threads(2).unwrap();
    for descriptor in [RnnDescriptor::lstm(3, 16), RnnDescriptor::gru(3, 16)] {
        let workspace = |seq_len| {
            let shape = RnnShape { seq_len, batch: 2 };
            backend.temp_space(&backend.plan(&descriptor, shape, ForwardMode::Inference).unwrap()).workspace
        };
        assert_eq!(workspace(100_000) - workspace(10_000), 90_000 * (1 + 2));
    }
}
