//! Layers of every kind with random options.

use fused_rnn::cell::CellKind;
use fused_rnn::nn::*;

use crate::arguments::{axis, fit, number, rate, size};
use crate::common::Rng;

fn activation(rng: &mut Rng) -> ActivationFunction {
    use ActivationFunction::*;
    rng.pick(&[
        Linear,
        Tanh,
        Relu,
        Sigmoid,
        HardSigmoid,
        Softsign,
        Softplus,
        Elu,
        Selu,
        LeakyRelu,
        Relu6,
        Gelu,
        GeluTanh,
        Silu,
        HardSilu,
        Mish,
        Exponential,
        Softmax,
        LogSoftmax,
    ])
}

/// One that a recurrent layer most often has.
fn gate(rng: &mut Rng) -> ActivationFunction {
    use ActivationFunction::*;
    if rng.chance(0.9) { rng.pick(&[Tanh, Sigmoid, HardSigmoid, Relu]) } else { activation(rng) }
}

fn function(rng: &mut Rng) -> Function {
    let alpha = fit(rng, &[0.5, 1.0, 0.1]);
    let beta = fit(rng, &[0.5, 0.0]);
    match rng.below(14) {
        0 => Function::HardSigmoid { alpha, beta },
        1 => Function::Elu { alpha },
        2 => Function::LeakyRelu { alpha },
        3 => Function::ThresholdedRelu { alpha },
        4 => Function::Affine { alpha, beta },
        5 => Function::Celu { alpha },
        6 => Function::Clip { low: alpha.min(beta), high: number(rng) },
        7 => Function::Softplus,
        8 => Function::Exp,
        9 => Function::Log,
        10 => Function::Sqrt,
        11 => Function::Reciprocal,
        12 => Function::Absolute,
        _ => Function::Tanh,
    }
}

fn initializer(rng: &mut Rng) -> Initializer {
    let (a, b) = (fit(rng, &[0.0, 0.1, -0.5]), fit(rng, &[0.5, 1.0]));
    match rng.below(12) {
        0 => Initializer::Zeros,
        1 => Initializer::Ones,
        2 => Initializer::Constant { value: a },
        3 => Initializer::RandomNormal { mean: a, stddev: b },
        4 => Initializer::RandomUniform { minval: a, maxval: b },
        5 => Initializer::TruncatedNormal { mean: a, stddev: b },
        6 => Initializer::GlorotNormal,
        7 => Initializer::HeUniform,
        8 => Initializer::LecunNormal,
        9 => Initializer::Orthogonal { gain: b },
        10 => Initializer::Identity { gain: b },
        _ => Initializer::GlorotUniform,
    }
}

fn regularizer(rng: &mut Rng) -> Regularizer {
    let (l1, l2) = (fit(rng, &[0.0, 0.01]), fit(rng, &[0.0, 0.01]));
    Regularizer::l1_l2(l1, l2)
}

fn constraint(rng: &mut Rng) -> Constraint {
    let (low, high) = (fit(rng, &[0.0, 0.5]), fit(rng, &[1.0, 2.0]));
    match rng.below(5) {
        0 => Constraint::NonNegative,
        1 => Constraint::max_norm(high),
        2 => Constraint::unit_norm(),
        3 => Constraint::MaxNorm { max_value: high, axes: vec![rng.below(4), rng.below(3)] },
        _ => Constraint::min_max_norm(low, high),
    }
}

fn weight_options(rng: &mut Rng) -> WeightOptions {
    let mut options = WeightOptions::default();
    if rng.chance(0.15) {
        options.initializer = Some(initializer(rng));
    }
    if rng.chance(0.1) {
        options.regularizer = Some(regularizer(rng));
    }
    if rng.chance(0.1) {
        options.constraint = Some(constraint(rng));
    }
    options
}

fn padding(rng: &mut Rng) -> Padding {
    match rng.below(5) {
        0 | 1 => Padding::Valid,
        2 => Padding::Same,
        3 => Padding::Causal,
        _ => Padding::Steps { before: size(rng), after: size(rng) },
    }
}

fn options(rng: &mut Rng) -> RecurrentOptions {
    let mut options = RecurrentOptions {
        return_sequences: rng.chance(0.5),
        return_state: rng.chance(0.1),
        go_backwards: rng.chance(0.2),
        stateful: rng.chance(0.1),
        double_bias: rng.chance(0.1),
        layer_norm: rng.chance(0.1),
        kernel: weight_options(rng),
        recurrent: weight_options(rng),
        bias: weight_options(rng),
        ..RecurrentOptions::default()
    };
    for option in [&mut options.dropout, &mut options.recurrent_dropout, &mut options.zoneout] {
        if rng.chance(0.15) {
            *option = rate(rng);
        }
    }
    for option in [&mut options.heads, &mut options.time_checkpoints, &mut options.num_layers] {
        if rng.chance(0.1) {
            *option = size(rng);
        }
    }
    if rng.chance(0.1) {
        options.activity_regularizer = Some(regularizer(rng));
    }
    options
}

fn recurrent(rng: &mut Rng) -> LayerConfig {
    let (units, options) = (size(rng), options(rng));
    match rng.below(6) {
        0 => IndRnn { options, ..IndRnn::new(units) }.into(),
        1 => Lstm {
            activation: gate(rng),
            recurrent_activation: gate(rng),
            use_bias: rng.chance(0.8),
            unit_forget_bias: rng.chance(0.8),
            options,
            ..Lstm::new(units)
        }
        .into(),
        2 => Gru {
            activation: gate(rng),
            recurrent_activation: gate(rng),
            use_bias: rng.chance(0.8),
            reset_after: rng.chance(0.7),
            options,
            ..Gru::new(units)
        }
        .into(),
        3 => SimpleRnn { activation: gate(rng), use_bias: rng.chance(0.8), options, ..SimpleRnn::new(units) }.into(),
        _ => LayerConfig::of_cell(rng.pick(&CellKind::ALL), units, options),
    }
}

fn operator(rng: &mut Rng) -> LayerConfig {
    let mut layer = RecurrentOperator::new(rng.pick(&CellKind::ALL), size(rng));
    if rng.chance(0.3) {
        layer.backwards = (0..rng.below(4)).map(|_| rng.chance(0.5)).collect();
        layer.activations = vec![layer.activations[0].clone(); layer.backwards.len()];
    }
    if rng.chance(0.2) {
        layer.activations = (0..rng.below(4))
            .map(|_| {
                ["sigmoid", "tanh", "hard_sigmoid:nan:0.5"]
                    .map(|name| if rng.chance(0.1) { "" } else { name }.to_owned())
            })
            .collect();
    }
    if rng.chance(0.1) {
        layer.cell = crate::arguments::name(rng);
    }
    if rng.chance(0.2) {
        layer.clip = Some(number(rng));
    }
    layer.use_bias = rng.chance(0.7);
    (layer.peepholes, layer.coupled_input_forget, layer.reset_after) =
        (rng.chance(0.2), rng.chance(0.2), rng.chance(0.2));
    layer.into()
}

fn sizes(rng: &mut Rng) -> Vec<usize> {
    (0..rng.below(4)).map(|_| size(rng)).collect()
}

fn part(rng: &mut Rng) -> Part {
    if rng.chance(0.2) {
        return Part::Filled { value: number(rng), count: size(rng) };
    }
    let step = if rng.chance(0.9) { rng.pick(&[1, 1, 2, -1]) } else { rng.pick(&[0, isize::MIN, isize::MAX]) };
    Part::Steps { start: rng.below(4), step, count: size(rng) }
}

/// A layer that learns, of the usual kinds.
fn usual(rng: &mut Rng) -> LayerConfig {
    match rng.below(4) {
        0 => Dense { activation: activation(rng), ..Dense::new(1 + rng.below(4)) }.into(),
        1 => Lstm::new(1 + rng.below(4)).return_sequences(rng.chance(0.6)).into(),
        2 => Gru::new(1 + rng.below(4)).return_sequences(rng.chance(0.6)).into(),
        _ => LayerNormalization::new().into(),
    }
}

/// Any layer.
pub fn layer(rng: &mut Rng) -> LayerConfig {
    match rng.below(64) {
        0 => ActivationLayer::new(activation(rng)).into(),
        1 => Add::new().into(),
        2 => AdditiveAttention::new().use_scale(rng.chance(0.5)).causal(rng.chance(0.3)).into(),
        3 => Attention::new().use_scale(rng.chance(0.5)).dropout(rate(rng)).causal(rng.chance(0.3)).into(),
        4 => Average::new().into(),
        5 => AveragePooling1D::new(size(rng)).strides(size(rng)).padding(padding(rng)).into(),
        6 => BatchNormalization { epsilon: fit(rng, &[1e-3]), ..BatchNormalization::new().momentum(fit(rng, &[0.99])) }
            .into(),
        7 => Broadcast::new(&sizes(rng)).into(),
        8 => Concatenate::new().into(),
        9 | 10 => {
            let merge = rng.pick(&[MergeMode::Concat, MergeMode::Sum, MergeMode::Mul, MergeMode::Ave]);
            let inner = if rng.chance(0.9) { recurrent(rng) } else { usual(rng) };
            Bidirectional::new(inner).merge_mode(merge).into()
        }
        11 | 12 => Conv1D {
            strides: size(rng),
            padding: padding(rng),
            dilation_rate: size(rng),
            groups: if rng.chance(0.8) { 1 } else { size(rng) },
            activation: activation(rng),
            use_bias: rng.chance(0.8),
            kernel: weight_options(rng),
            bias: weight_options(rng),
            ..Conv1D::new(size(rng), size(rng))
        }
        .into(),
        13 => {
            let mut layer = Conv1DTranspose::new(size(rng), size(rng)).strides(size(rng)).padding(padding(rng));
            if rng.chance(0.3) {
                layer = layer.output_padding(size(rng)).dilation_rate(size(rng));
            }
            layer.into()
        }
        14 => Cropping1D::new(rng.below(2), size(rng)).into(),
        15..=18 => Dense {
            activation: activation(rng),
            use_bias: rng.chance(0.8),
            kernel: weight_options(rng),
            bias: weight_options(rng),
            activity_regularizer: rng.chance(0.1).then(|| regularizer(rng)),
            ..Dense::new(size(rng))
        }
        .into(),
        19 => Dot::new(axis(rng), axis(rng)).normalize(rng.chance(0.3)).into(),
        20 => Dropout::new(rate(rng)).into(),
        21 => Elementwise::new(function(rng)).into(),
        22 | 23 => {
            Embedding { embeddings: weight_options(rng), ..Embedding::new(size(rng).saturating_add(2), size(rng)) }
                .mask_zero(rng.chance(0.5))
                .into()
        }
        24 => Flatten::new().into(),
        25 => GaussianDropout::new(rate(rng)).into(),
        26 => GaussianNoise::new(rate(rng)).into(),
        27 => GlobalAveragePooling1D::new().into(),
        28 => GlobalMaxPooling1D::new().into(),
        29 => LayerNormalization::new().epsilon(fit(rng, &[1e-3])).into(),
        30 => Masking::new(fit(rng, &[0.0, -1.0])).into(),
        31 => MatMul::new().into(),
        32 => MaxPooling1D::new(size(rng)).strides(size(rng)).padding(padding(rng)).into(),
        33 => Maximum::new().into(),
        34 => {
            let mut layer = MultiHeadAttention::new(size(rng), size(rng)).dropout(rate(rng)).causal(rng.chance(0.3));
            layer.return_attention_scores = rng.chance(0.1);
            if rng.chance(0.3) {
                (layer.value_dim, layer.output_dim) = (Some(size(rng)), rng.chance(0.5).then(|| size(rng)));
            }
            layer.into()
        }
        35 => Multiply::new().into(),
        36 => Normalization::new().by_feature(rng.chance(0.5)).into(),
        37 => PRelu { alpha: weight_options(rng), ..PRelu::new().shared_axes(&sizes(rng)) }.into(),
        38 => {
            Pairwise::new(rng.pick(&[Combination::Sum, Combination::Quotient, Combination::Power, Combination::Modulo]))
                .into()
        }
        39 => Permute::new(&sizes(rng)).into(),
        40 => PositionalEncoding { max_wavelength: fit(rng, &[10_000.0]) }.into(),
        41 => operator(rng),
        42 => {
            let reduction = rng.pick(&[Reduction::Sum, Reduction::Mean, Reduction::Maximum, Reduction::Minimum]);
            Reduce::new(reduction, &sizes(rng)).into()
        }
        43 => RepeatVector::new(size(rng)).into(),
        44 => Reshape::new(
            &(0..rng.below(4)).map(|_| if rng.chance(0.5) { axis(rng) } else { size(rng) as i64 }).collect::<Vec<_>>(),
        )
        .into(),
        45 => SequenceMask::new().into(),
        46 => Slice::of_parts(rng.below(3), &(0..1 + rng.below(2)).map(|_| part(rng)).collect::<Vec<_>>()).into(),
        47 => Softmax::new().axis(axis(rng)).into(),
        48 => SpatialDropout1D::new(rate(rng)).into(),
        49 => Subtract::new().into(),
        50 | 51 => TimeDistributed::new(if rng.chance(0.7) { usual(rng) } else { layer(rng) }).into(),
        52 => TransformerEncoder::new(size(rng), size(rng), size(rng))
            .dropout(rate(rng))
            .norm_first(rng.chance(0.5))
            .into(),
        53 => UnitNormalization::new().axes(&[axis(rng)]).into(),
        54 => UpSampling1D::new(size(rng)).into(),
        55 => Weight::new(&sizes(rng)).trainable(rng.chance(0.7)).into(),
        56 => Where::new().into(),
        57 => ZeroPadding1D::new(size(rng), rng.below(2)).into(),
        _ => recurrent(rng),
    }
}
