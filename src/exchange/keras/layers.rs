//! Keras's layers in this crate's words: what one is made of here, and where its arrays stand.
//!
//! Recurrent layers stand in `recurrent`, those that combine several tensors in `merges`, normalizations in `normalizations`.

use serde_json::{Map, Value};

use super::options::Options;
use super::program::{Arrays, Input, Layout, Masks, Program};
use super::recurrent::{bidirectional, recurrent};
use super::{merges, normalizations, training};
use crate::error::{Error, Result};
use crate::nn::*;

/// Groups of the projections of multi-head attention.
const PROJECTIONS: [&str; 4] = ["query_dense", "key_dense", "value_dense", "output_dense"];

use Program as P;

/// What is known of a layer's inputs.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// Their sample shapes; empty where they are unknown.
    pub shapes: Vec<Vec<usize>>,
    /// Axes of the first one, with the batch.
    pub rank: Option<usize>,
}

impl Known {
    /// Inputs of these sample shapes.
    pub fn of(shapes: Vec<Vec<usize>>, rank: Option<usize>) -> Self {
        let rank = shapes.first().map(|shape| shape.len() + 1).or(rank);
        Known { shapes, rank }
    }

    /// The sample shape of the first input, which an option needs.
    pub fn first(&self, o: &Options<'_>, option: &'static str) -> Result<&[usize]> {
        let shape = self.shapes.first().map(Vec::as_slice);
        shape.ok_or_else(|| {
            o.unsupported(option, "where the shape of its input is not known, as inside of TimeDistributed")
        })
    }
}

/// Translates a layer. `call` is what its calls say besides tensors.
pub(super) fn translate(
    class: &str,
    options: Options<'_>,
    call: &Map<String, Value>,
    known: &Known,
) -> Result<Program> {
    let mut o = options;
    let only_here = "this crate has data with the features last";
    let flag = |key: &str| call.get(key).and_then(Value::as_bool).unwrap_or(false);
    let translated = match class {
        "SimpleRNN" | "LSTM" | "GRU" | "RNN" => recurrent(class, &mut o)?,
        "Bidirectional" => bidirectional(&mut o, known)?,
        "TimeDistributed" => super::distributed::translate_wrapper(&mut o, known)?,
        "Dense" => {
            let (activation, behind) = o.any_activation("activation")?;
            let layer = Dense {
                kernel: training::weights(&mut o, class, "kernel_regularizer", "kernel_constraint"),
                bias: training::weights(&mut o, class, "bias_regularizer", "bias_constraint"),
                activity_regularizer: training::activity(&mut o).filter(|_| behind.is_empty()),
                ..Dense::new(o.size("units")?).use_bias(o.flag("use_bias", true)?)
            };
            behind.into_iter().fold(P::one(layer.activation(activation), &[""]), P::then)
        }
        "Conv1D" => {
            o.only("data_format", "channels_last", only_here)?;
            let (activation, behind) = o.any_activation("activation")?;
            let layer = Conv1D {
                strides: o.optional_size("strides")?.unwrap_or(1),
                padding: o.padding()?,
                dilation_rate: o.optional_size("dilation_rate")?.unwrap_or(1),
                groups: o.optional_size("groups")?.unwrap_or(1),
                activation,
                use_bias: o.flag("use_bias", true)?,
                kernel: training::weights(&mut o, class, "kernel_regularizer", "kernel_constraint"),
                bias: training::weights(&mut o, class, "bias_regularizer", "bias_constraint"),
                activity_regularizer: training::activity(&mut o).filter(|_| behind.is_empty()),
                ..Conv1D::new(o.size("filters")?, o.size("kernel_size")?)
            };
            behind.into_iter().fold(P::one(layer, &[""]), P::then)
        }
        "Conv1DTranspose" => {
            o.only("data_format", "channels_last", only_here)?;
            let (activation, behind) = o.any_activation("activation")?;
            let layer = Conv1DTranspose {
                strides: o.optional_size("strides")?.unwrap_or(1),
                padding: o.padding()?,
                output_padding: o.optional_size("output_padding")?,
                dilation_rate: o.optional_size("dilation_rate")?.unwrap_or(1),
                activation,
                use_bias: o.flag("use_bias", true)?,
                ..Conv1DTranspose::new(o.size("filters")?, o.size("kernel_size")?)
            };
            behind.into_iter().fold(P::one(layer, &[""]), P::then)
        }
        "EinsumDense" => super::einsum::translate(&mut o, known)?,
        "DepthwiseConv1D" | "SeparableConv1D" => depthwise(class, &mut o, known)?,
        "ZeroPadding1D" => {
            o.only("data_format", "channels_last", only_here)?;
            let (before, after) = o.margins("padding")?;
            P::one(ZeroPadding1D::new(before, after), &[])
        }
        "Cropping1D" => {
            let (before, after) = o.margins("cropping")?;
            P::one(Cropping1D::new(before, after), &[])
        }
        "UpSampling1D" => P::one(UpSampling1D::new(o.size("size")?), &[]),
        "PReLU" => {
            let axes = o.axes("shared_axes")?.unwrap_or_default();
            let axes: Option<Vec<usize>> = axes.iter().map(|axis| usize::try_from(*axis).ok()).collect();
            let axes = axes.ok_or_else(|| o.invalid("shared_axes", "axes from 1 on"))?;
            let alpha = training::weights(&mut o, class, "alpha_regularizer", "alpha_constraint");
            P::one(PRelu { alpha, ..PRelu::new().shared_axes(&axes) }, &[""])
        }
        "Dot" => {
            let axes = o.axes("axes")?.ok_or_else(|| o.invalid("axes", "an axis, or one for each input"))?;
            let (first, second) = match axes[..] {
                [both] => (both, both),
                [first, second] => (first, second),
                _ => return Err(o.invalid("axes", "an axis, or one for each input")),
            };
            P::one(Dot::new(first, second).normalize(o.flag("normalize", false)?), &[])
        }
        "Identity" => P::one(ActivationLayer::new(ActivationFunction::Linear), &[]),
        "Lambda" => {
            return Err(Error::unsupported(
                format!("{}: {}", o.path().display(), o.what()),
                "it holds Python's code, which is not run; put layers or operations there (keras.ops.sum(x, axis=1)) and save the model again",
            ));
        }
        "MaxPooling1D" | "AveragePooling1D" => {
            o.only("data_format", "channels_last", only_here)?;
            let (pool_size, strides, padding) = (o.size("pool_size")?, o.optional_size("strides")?, o.padding()?);
            match class {
                "MaxPooling1D" => P::one(MaxPooling1D { pool_size, strides, padding }, &[]),
                _ => P::one(AveragePooling1D { pool_size, strides, padding }, &[]),
            }
        }
        "GlobalAveragePooling1D" | "GlobalMaxPooling1D" => {
            o.only("data_format", "channels_last", only_here)?;
            let mut translated = match class {
                "GlobalAveragePooling1D" => P::one(GlobalAveragePooling1D::new(), &[]),
                _ => P::one(GlobalMaxPooling1D::new(), &[]).masks(Masks::Ignored),
            };
            if o.flag("keepdims", false)? {
                translated = translated.then(Reshape::new(&[1, -1]));
            }
            translated
        }
        "Activation" => {
            let (activation, functions) = o.any_activation("activation")?;
            match functions.is_empty() {
                true => P::one(ActivationLayer::new(activation), &[]),
                false => P::chain(functions),
            }
        }
        "ReLU" => {
            let (slope, threshold) = (o.number("negative_slope", 0.0)?, o.number("threshold", 0.0)?);
            let most = o.take("max_value").map(|_| o.number("max_value", 0.0)).transpose()?;
            rectifier(slope, threshold, most)
        }
        "LeakyReLU" => {
            let key = if o.take("alpha").is_some() { "alpha" } else { "negative_slope" };
            match o.number(key, 0.3)? {
                0.2 => P::one(ActivationLayer::new(ActivationFunction::LeakyRelu), &[]),
                alpha => P::one(Elementwise::new(Function::LeakyRelu { alpha }), &[]),
            }
        }
        "ELU" => match o.number("alpha", 1.0)? {
            1.0 => P::one(ActivationLayer::new(ActivationFunction::Elu), &[]),
            alpha => P::one(Elementwise::new(Function::Elu { alpha }), &[]),
        },
        "Softmax" => softmax(&mut o, known)?,
        "Embedding" => {
            let layer = Embedding {
                embeddings: training::weights(&mut o, class, "embeddings_regularizer", "embeddings_constraint"),
                activity_regularizer: training::activity(&mut o),
                ..Embedding::new(o.size("input_dim")?, o.size("output_dim")?)
            };
            for key in ["input_length", "sparse"] {
                o.take(key);
            }
            P::one(layer.mask_zero(o.flag("mask_zero", false)?), &[""])
        }
        "Masking" => P::one(Masking::new(o.number("mask_value", 0.0)?), &[]),
        "Dropout" => {
            // Which elements are dropped together changes training alone.
            o.take("noise_shape");
            P::one(Dropout::new(o.number("rate", 0.0)?), &[])
        }
        "SpatialDropout1D" => {
            o.only("data_format", "channels_last", only_here)?;
            P::one(SpatialDropout1D::new(o.number("rate", 0.0)?), &[])
        }
        "GaussianNoise" => P::one(GaussianNoise::new(o.number("stddev", 0.0)?), &[]),
        "GaussianDropout" => P::one(GaussianDropout::new(o.number("rate", 0.0)?), &[]),
        // Noise of training: nothing without it.
        "AlphaDropout" | "ActivityRegularization" => {
            for key in ["rate", "l1", "l2", "noise_shape"] {
                o.take(key);
            }
            P::one(ActivationLayer::new(ActivationFunction::Linear), &[])
        }
        "BatchNormalization" | "LayerNormalization" | "GroupNormalization" | "RMSNormalization"
        | "UnitNormalization" | "Normalization" => normalizations::translate(class, &mut o, known)?,
        "Reshape" => {
            let shape = o.take("target_shape").and_then(|v| v.as_array());
            let shape: Option<Vec<i64>> = shape.and_then(|list| list.iter().map(Value::as_i64).collect());
            P::one(Reshape::new(&shape.ok_or_else(|| o.invalid("target_shape", "a list of sizes"))?), &[])
        }
        "Flatten" => {
            o.only("data_format", "channels_last", only_here)?;
            P::one(Flatten::new(), &[])
        }
        "Permute" => {
            let dims = o.take("dims").and_then(|v| v.as_array());
            let dims: Option<Vec<usize>> =
                dims.and_then(|list| list.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect());
            P::one(Permute::new(&dims.ok_or_else(|| o.invalid("dims", "a list of axes"))?), &[])
        }
        "RepeatVector" => P::one(RepeatVector::new(o.size("n")?), &[]),
        "Add" | "Subtract" | "Multiply" | "Average" | "Maximum" | "Minimum" | "Concatenate" => {
            merges::translate(class, &mut o, known)?
        }
        "Rescaling" => normalizations::rescaling(&mut o)?,
        "Attention" => {
            if o.text("score_mode", "dot")? != "dot" {
                return Err(o.unsupported("score_mode", "only dot"));
            }
            let use_scale = o.flag("use_scale", false)?;
            let mut layer = Attention::new().use_scale(use_scale);
            layer.dropout = o.number("dropout", 0.0)?;
            (layer.causal, layer.return_attention_scores) = (flag("use_causal_mask"), flag("return_attention_scores"));
            P::one(layer, if use_scale { &[""] } else { &[] })
        }
        "AdditiveAttention" => {
            o.take("score_mode");
            let use_scale = o.flag("use_scale", true)?;
            let mut layer = AdditiveAttention::new().use_scale(use_scale);
            layer.dropout = o.number("dropout", 0.0)?;
            (layer.causal, layer.return_attention_scores) = (flag("use_causal_mask"), flag("return_attention_scores"));
            P::one(layer, if use_scale { &[""] } else { &[] })
        }
        "MultiHeadAttention" => {
            if o.flag("use_gate", false)? || o.take("sliding_window").is_some() || o.flag("flash_attention", false)? {
                let key = ["use_gate", "sliding_window", "flash_attention"]
                    .into_iter()
                    .find(|key| o.take(key).is_some_and(|v| *v != false))
                    .unwrap_or("use_gate");
                if key != "flash_attention" {
                    return Err(o.unsupported(key, "only without"));
                }
            }
            if o.take("attention_axes").is_some_and(|axes| *axes != serde_json::json!([1])) {
                return Err(o.unsupported("attention_axes", "only the steps, [1]"));
            }
            let mut layer = MultiHeadAttention::new(o.size("num_heads")?, o.size("key_dim")?);
            layer.value_dim = o.optional_size("value_dim")?;
            layer.output_dim = o.optional_size("output_shape")?;
            layer.use_bias = o.flag("use_bias", true)?;
            layer.dropout = o.number("dropout", 0.0)?;
            (layer.causal, layer.return_attention_scores) = (flag("use_causal_mask"), flag("return_attention_scores"));
            P::one(layer, &PROJECTIONS)
        }
        _ => {
            return Err(Error::unsupported(
                format!("{}: {}", o.path().display(), o.what()),
                "this crate has no such layer; docs/keras_pytorch.md lists those that are read",
            ));
        }
    };
    o.take("quantization_config")
        .map_or(Ok(()), |_| Err(o.unsupported("quantization_config", "weights of floats are read")))?;
    o.end()?;
    Ok(translated)
}

/// `most` from there on, x from `threshold` on, `slope (x - threshold)` below.
fn rectifier(slope: f64, threshold: f64, most: Option<f64>) -> Program {
    match (slope == 0.0, threshold == 0.0, most) {
        (true, true, None) => return P::one(ActivationLayer::new(ActivationFunction::Relu), &[]),
        (true, true, Some(high)) => return P::one(Elementwise::new(Function::Clip { low: 0.0, high }), &[]),
        (false, true, None) => return P::one(Elementwise::new(Function::LeakyRelu { alpha: slope }), &[]),
        (true, false, None) => return P::one(Elementwise::new(Function::ThresholdedRelu { alpha: threshold }), &[]),
        _ => {}
    }
    let mut program = Program::new();
    let x = Input::Call(0);
    let mut y = program.add(Elementwise::new(Function::ThresholdedRelu { alpha: threshold }), &[x]);
    if let Some(high) = most {
        y = program.add(Elementwise::new(Function::Clip { low: f64::MIN, high }), &[y]);
    }
    if slope != 0.0 {
        let below = program.add(Elementwise::new(Function::Affine { alpha: -1.0, beta: threshold }), &[x]);
        let below = program.add(ActivationLayer::new(ActivationFunction::Relu), &[below]);
        let below = program.add(Elementwise::new(Function::Affine { alpha: -slope, beta: 0.0 }), &[below]);
        y = program.add(Add::new(), &[y, below]);
    }
    program.giving(&[y])
}

/// A convolution of each feature by itself, and in a separable one another of single steps behind it.
fn depthwise(class: &str, o: &mut Options<'_>, known: &Known) -> Result<Program> {
    o.only("data_format", "channels_last", "this crate has data with the features last")?;
    let features = match known.first(o, "depth_multiplier")? {
        &[_, features] => features,
        _ => return Err(o.unsupported("kernel_size", "for inputs of steps and features")),
    };
    let filters = features.checked_mul(o.optional_size("depth_multiplier")?.unwrap_or(1));
    let filters = filters.ok_or_else(|| o.invalid("depth_multiplier", "a smaller one"))?;
    let (activation, behind) = o.any_activation("activation")?;
    let use_bias = o.flag("use_bias", true)?;
    let separable = class == "SeparableConv1D";
    let layer = Conv1D {
        strides: o.optional_size("strides")?.unwrap_or(1),
        padding: o.padding()?,
        dilation_rate: o.optional_size("dilation_rate")?.unwrap_or(1),
        groups: features,
        use_bias: use_bias && !separable,
        activation: if separable { ActivationFunction::Linear } else { activation },
        ..Conv1D::new(filters, o.size("kernel_size")?)
    };
    let part = |first: usize, count: usize, layout: Layout| Arrays::Part { group: String::new(), first, count, layout };
    let mut program = Program::new();
    let count = 1 + usize::from(use_bias);
    let mut y = match separable {
        false => program.add_with(layer, &[Input::Call(0)], part(0, count, Layout::Depthwise)),
        true => {
            let y = program.add_with(layer, &[Input::Call(0)], part(0, 1, Layout::Depthwise));
            let points = Conv1D::new(o.size("filters")?, 1).use_bias(use_bias).activation(activation);
            program.add_with(points, &[y], part(1, count, Layout::Same))
        }
    };
    for layer in behind {
        y = program.add(layer, &[y]);
    }
    Ok(program.giving(&[y]))
}

/// The softmax along an axis, or over several that stand side by side.
fn softmax(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let axes = o.axes("axis")?.unwrap_or_else(|| vec![-1]);
    let last = known.rank.and_then(|rank| i64::try_from(rank).ok()).map(|rank| rank - 1);
    match axes[..] {
        [axis] if axis == -1 || Some(axis) == last => {
            Ok(Program::one(ActivationLayer::new(ActivationFunction::Softmax), &[]))
        }
        [axis] => {
            Ok(Program::one(Softmax { axis }, &[]).masks(Masks::Refused("a softmax along another axis than the last")))
        }
        _ => {
            let shape = known.first(o, "axis")?.to_vec();
            let range = merges::range_of(&axes, shape.len());
            let range = range.ok_or_else(|| o.unsupported("axis", "axes of a sample that stand side by side"))?;
            let size = |axes: std::ops::Range<usize>| shape.get(axes).unwrap_or_default().iter().product::<usize>();
            let flat = [size(0..range.start), size(range.clone()), size(range.end..shape.len())];
            let mut program = Program::new();
            let y = program.reshape(Input::Call(0), &flat);
            let y = program.add(Softmax { axis: 2 }, &[y]);
            let y = program.reshape(y, &shape);
            Ok(program.giving(&[y]).masks(Masks::Refused("a softmax over several axes")))
        }
    }
}
