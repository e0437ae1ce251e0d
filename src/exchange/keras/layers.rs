//! Keras's layers in this crate's words: what one is made of here, and where its arrays stand.

use serde_json::{Map, Value};

use super::options::Options;
use crate::error::{Error, Result};
use crate::nn::*;

/// A layer of this crate that a layer of Keras becomes, or is a part of.
pub(super) struct Piece {
    pub layer: LayerConfig,
    /// Groups of its arrays, below that of Keras's layer, in the order of Keras's `get_weights()`.
    pub groups: Vec<String>,
}

/// What a layer of Keras becomes: one after the other.
pub(super) struct Translated {
    pub pieces: Vec<Piece>,
    pub masks: Masks,
}

/// What Keras does with the mask of a layer's input that this crate's layer does otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl Translated {
    /// The same with another layer behind it, if there is one.
    fn then(mut self, behind: Option<LayerConfig>) -> Self {
        self.pieces.extend(behind.map(|layer| Piece { layer, groups: Vec::new() }));
        self
    }
}

/// Groups of the projections of multi-head attention.
const PROJECTIONS: [&str; 4] = ["query_dense", "key_dense", "value_dense", "output_dense"];

fn one(layer: impl Into<LayerConfig>, groups: &[&str]) -> Translated {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Translated { pieces: vec![Piece { layer: layer.into(), groups }], masks: Masks::Alike }
}

/// Translates a layer. `call` is what its calls say besides tensors; `rank` the axes of its input, with the batch.
pub(super) fn translate(
    class: &str,
    options: Options<'_>,
    call: &Map<String, Value>,
    rank: Option<usize>,
) -> Result<Translated> {
    let mut o = options;
    let only_here = "this crate has data with the features last";
    let flag = |key: &str| call.get(key).and_then(Value::as_bool).unwrap_or(false);
    let translated = match class {
        "SimpleRNN" | "LSTM" | "GRU" | "RNN" => recurrent(class, &mut o)?,
        "Bidirectional" => bidirectional(&mut o)?,
        "TimeDistributed" => time_distributed(&mut o)?,
        "Dense" => {
            let layer = Dense::new(o.size("units")?).use_bias(o.flag("use_bias", true)?);
            let (activation, behind) = o.any_activation("activation")?;
            one(layer.activation(activation), &[""]).then(behind)
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
                ..Conv1D::new(o.size("filters")?, o.size("kernel_size")?)
            };
            one(layer, &[""]).then(behind)
        }
        "MaxPooling1D" | "AveragePooling1D" => {
            o.only("data_format", "channels_last", only_here)?;
            let (pool_size, strides, padding) = (o.size("pool_size")?, o.optional_size("strides")?, o.padding()?);
            match class {
                "MaxPooling1D" => one(MaxPooling1D { pool_size, strides, padding }, &[]),
                _ => one(AveragePooling1D { pool_size, strides, padding }, &[]),
            }
        }
        "GlobalAveragePooling1D" | "GlobalMaxPooling1D" => {
            o.only("data_format", "channels_last", only_here)?;
            let mut translated = match class {
                "GlobalAveragePooling1D" => one(GlobalAveragePooling1D::new(), &[]),
                _ => Translated { masks: Masks::Ignored, ..one(GlobalMaxPooling1D::new(), &[]) },
            };
            if o.flag("keepdims", false)? {
                translated.pieces.push(Piece { layer: Reshape::new(&[1, -1]).into(), groups: Vec::new() });
            }
            translated
        }
        "Activation" => {
            let (activation, function) = o.any_activation("activation")?;
            one(function.unwrap_or(ActivationLayer::new(activation).into()), &[])
        }
        "ReLU" => {
            let (slope, threshold) = (o.number("negative_slope", 0.0)?, o.number("threshold", 0.0)?);
            let most = o.take("max_value").map(|_| o.number("max_value", 0.0)).transpose()?;
            match (slope == 0.0, threshold == 0.0, most) {
                (true, true, None) => one(ActivationLayer::new(ActivationFunction::Relu), &[]),
                (true, true, Some(high)) => one(Elementwise::new(Function::Clip { low: 0.0, high }), &[]),
                (false, true, None) => one(Elementwise::new(Function::LeakyRelu { alpha: slope }), &[]),
                (true, false, None) => one(Elementwise::new(Function::ThresholdedRelu { alpha: threshold }), &[]),
                _ => return Err(o.unsupported("max_value", "one of max_value, negative_slope and threshold at a time")),
            }
        }
        "LeakyReLU" => {
            let key = if o.take("alpha").is_some() { "alpha" } else { "negative_slope" };
            match o.number(key, 0.3)? {
                0.2 => one(ActivationLayer::new(ActivationFunction::LeakyRelu), &[]),
                alpha => one(Elementwise::new(Function::LeakyRelu { alpha }), &[]),
            }
        }
        "ELU" => match o.number("alpha", 1.0)? {
            1.0 => one(ActivationLayer::new(ActivationFunction::Elu), &[]),
            alpha => one(Elementwise::new(Function::Elu { alpha }), &[]),
        },
        "Softmax" => {
            o.last_axis(rank)?;
            one(ActivationLayer::new(ActivationFunction::Softmax), &[])
        }
        "Embedding" => {
            let layer = Embedding::new(o.size("input_dim")?, o.size("output_dim")?);
            for key in ["input_length", "sparse"] {
                o.take(key);
            }
            one(layer.mask_zero(o.flag("mask_zero", false)?), &[""])
        }
        "Masking" => one(Masking::new(o.number("mask_value", 0.0)?), &[]),
        "Dropout" => {
            // Which elements are dropped together changes training alone.
            o.take("noise_shape");
            one(Dropout::new(o.number("rate", 0.0)?), &[])
        }
        // Noise of training: nothing without it.
        "SpatialDropout1D" | "GaussianNoise" | "GaussianDropout" | "AlphaDropout" | "ActivityRegularization" => {
            for key in ["rate", "stddev", "l1", "l2", "noise_shape", "data_format"] {
                o.take(key);
            }
            one(ActivationLayer::new(ActivationFunction::Linear), &[])
        }
        "BatchNormalization" => {
            o.last_axis(rank)?;
            for key in ["synchronized", "renorm", "renorm_clipping", "renorm_momentum"] {
                o.take(key);
            }
            let layer = BatchNormalization {
                momentum: o.number("momentum", 0.99)?,
                epsilon: o.number("epsilon", 1e-3)?,
                center: o.flag("center", true)?,
                scale: o.flag("scale", true)?,
            };
            one(layer, &[""])
        }
        "LayerNormalization" => {
            o.last_axis(rank)?;
            if o.flag("rms_scaling", false)? {
                return Err(o.unsupported("rms_scaling", "only without"));
            }
            let layer = LayerNormalization {
                epsilon: o.number("epsilon", 1e-3)?,
                center: o.flag("center", true)?,
                scale: o.flag("scale", true)?,
            };
            one(layer, &[""])
        }
        "Reshape" => {
            let shape = o.take("target_shape").and_then(|v| v.as_array());
            let shape: Option<Vec<i64>> = shape.and_then(|list| list.iter().map(Value::as_i64).collect());
            one(Reshape::new(&shape.ok_or_else(|| o.invalid("target_shape", "a list of sizes"))?), &[])
        }
        "Flatten" => {
            o.only("data_format", "channels_last", only_here)?;
            one(Flatten::new(), &[])
        }
        "Permute" => {
            let dims = o.take("dims").and_then(|v| v.as_array());
            let dims: Option<Vec<usize>> =
                dims.and_then(|list| list.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect());
            one(Permute::new(&dims.ok_or_else(|| o.invalid("dims", "a list of axes"))?), &[])
        }
        "RepeatVector" => one(RepeatVector::new(o.size("n")?), &[]),
        "Add" => one(Add::new(), &[]),
        "Subtract" => one(Subtract::new(), &[]),
        "Multiply" => one(Multiply::new(), &[]),
        "Average" => one(Average::new(), &[]),
        "Maximum" => one(Maximum::new(), &[]),
        // Of two inputs.
        "Minimum" => one(Pairwise::new(Combination::Minimum), &[]),
        "Rescaling" => {
            let function = Function::Affine { alpha: o.number("scale", 1.0)?, beta: o.number("offset", 0.0)? };
            one(Elementwise::new(function), &[])
        }
        "Concatenate" => {
            o.last_axis(rank)?;
            one(Concatenate::new(), &[])
        }
        "Attention" => {
            if o.text("score_mode", "dot")? != "dot" {
                return Err(o.unsupported("score_mode", "only dot"));
            }
            let use_scale = o.flag("use_scale", false)?;
            let mut layer = Attention::new().use_scale(use_scale);
            layer.dropout = o.number("dropout", 0.0)?;
            (layer.causal, layer.return_attention_scores) = (flag("use_causal_mask"), flag("return_attention_scores"));
            one(layer, if use_scale { &[""] } else { &[] })
        }
        "AdditiveAttention" => {
            o.take("score_mode");
            let use_scale = o.flag("use_scale", true)?;
            let mut layer = AdditiveAttention::new().use_scale(use_scale);
            layer.dropout = o.number("dropout", 0.0)?;
            (layer.causal, layer.return_attention_scores) = (flag("use_causal_mask"), flag("return_attention_scores"));
            one(layer, if use_scale { &[""] } else { &[] })
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
            one(layer, &PROJECTIONS)
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

/// Options that recurrent layers and `RNN` have in common.
fn recurrent_options(o: &mut Options<'_>) -> Result<(RecurrentOptions, Masks)> {
    let options = RecurrentOptions {
        return_sequences: o.flag("return_sequences", false)?,
        return_state: o.flag("return_state", false)?,
        go_backwards: o.flag("go_backwards", false)?,
        stateful: o.flag("stateful", false)?,
        ..RecurrentOptions::default()
    };
    o.take("use_cudnn");
    let masks = match (o.flag("zero_output_for_mask", false)?, options.return_sequences, options.go_backwards) {
        (true, true, _) => Masks::Refused("zero_output_for_mask"),
        (_, true, true) => Masks::Refused("go_backwards and return_sequences"),
        _ => Masks::IgnoredWithStates,
    };
    Ok((options, masks))
}

/// What the cell of a layer has: the layer with these options.
fn cell(class: &str, o: &mut Options<'_>, options: RecurrentOptions) -> Result<LayerConfig> {
    let options = RecurrentOptions {
        dropout: o.number("dropout", 0.0)?,
        recurrent_dropout: o.number("recurrent_dropout", 0.0)?,
        ..options
    };
    let (units, use_bias) = (o.size("units")?, o.flag("use_bias", true)?);
    let activation = o.activation("activation", ActivationFunction::Tanh)?;
    Ok(match class {
        "SimpleRNN" => SimpleRnn { options, ..SimpleRnn::new(units).activation(activation).use_bias(use_bias) }.into(),
        "LSTM" => Lstm {
            recurrent_activation: o.activation("recurrent_activation", ActivationFunction::Sigmoid)?,
            unit_forget_bias: o.flag("unit_forget_bias", true)?,
            options,
            ..Lstm::new(units).activation(activation).use_bias(use_bias)
        }
        .into(),
        "GRU" => Gru {
            recurrent_activation: o.activation("recurrent_activation", ActivationFunction::Sigmoid)?,
            reset_after: o.flag("reset_after", true)?,
            options,
            ..Gru::new(units).activation(activation).use_bias(use_bias)
        }
        .into(),
        _ => {
            return Err(Error::unsupported(
                format!("{}: {} with a cell {class}", o.path().display(), o.what()),
                "cells are SimpleRNNCell, LSTMCell, GRUCell and StackedRNNCells of these",
            ));
        }
    })
}

/// A recurrent layer, or an `RNN` over a cell or over several.
fn recurrent(class: &str, o: &mut Options<'_>) -> Result<Translated> {
    let (options, masks) = recurrent_options(o)?;
    if class != "RNN" {
        let layer = cell(class, o, options)?;
        return Ok(Translated { masks, ..one(layer, &["cell"]) });
    }
    let (class, config) = o.object("cell")?;
    if class != "StackedRNNCells" {
        let layer = own_cell(class, config, o, options)?;
        return Ok(Translated { masks, ..one(layer, &["cell"]) });
    }
    if options.return_state || options.stateful {
        return Err(
            o.unsupported("cell", "several cells: without return_state and stateful, or each in a layer of its own")
        );
    }
    let Some(cells) = config.get("cells").and_then(Value::as_array).filter(|cells| !cells.is_empty()) else {
        return Err(o.invalid("cell", "StackedRNNCells with cells"));
    };
    let mut counters = super::names::Counters::default();
    let mut pieces = Vec::new();
    for (number, value) in cells.iter().enumerate() {
        let Some((class, config)) = super::options::object(value) else {
            return Err(o.invalid("cell", "cells with class_name and config"));
        };
        let options = RecurrentOptions {
            return_sequences: options.return_sequences || number + 1 < cells.len(),
            go_backwards: options.go_backwards && number == 0,
            ..RecurrentOptions::default()
        };
        let layer = own_cell(class, config, o, options)?;
        pieces.push(Piece { layer, groups: vec![format!("cell/cells/{}", counters.next(class))] });
    }
    // Where one of several layers goes backwards, masks of those above it would be turned round.
    let masks = if options.go_backwards { Masks::Refused("go_backwards of several cells") } else { masks };
    Ok(Translated { pieces, masks })
}

/// A cell inside of an `RNN`, with options of its own.
fn own_cell(
    class: &str,
    config: &Map<String, Value>,
    o: &Options<'_>,
    options: RecurrentOptions,
) -> Result<LayerConfig> {
    let mut inner = Options::new(o.path(), "in it", class, config);
    let layer = cell(class.strip_suffix("Cell").unwrap_or(class), &mut inner, options)?;
    inner.end()?;
    Ok(layer)
}

/// A recurrent layer in both directions.
fn bidirectional(o: &mut Options<'_>) -> Result<Translated> {
    let merge_mode = match o.take("merge_mode").map(|v| v.as_str().unwrap_or("")) {
        Some("concat") => MergeMode::Concat,
        Some("sum") => MergeMode::Sum,
        Some("mul") => MergeMode::Mul,
        Some("ave") => MergeMode::Ave,
        Some(_) => return Err(o.invalid("merge_mode", "concat, sum, mul or ave")),
        None => return Err(o.unsupported("merge_mode", "both directions apart; use concat and split them")),
    };
    let forward = direction(o, "layer")?.ok_or_else(|| o.invalid("layer", "a recurrent layer"))?;
    let mut layer = forward;
    if let Some(mut backward) = direction(o, "backward_layer")? {
        match backward.as_recurrent_mut() {
            Some(recurrent) if recurrent.options().go_backwards => recurrent.options_mut().go_backwards = false,
            _ => return Err(o.unsupported("backward_layer", "only one that goes backwards")),
        }
        // Its dropout and the start of its biases may differ, which changes training alone; the forward layer's count.
        if !same_function(&layer, &backward) {
            return Err(o.unsupported("backward_layer", "only one with the options of the forward layer"));
        }
    }
    match layer.as_recurrent_mut() {
        Some(recurrent) if !recurrent.options().go_backwards => {}
        _ => return Err(o.unsupported("layer", "only one that goes forwards")),
    }
    let layer = Bidirectional::new(layer).merge_mode(merge_mode);
    Ok(Translated { masks: Masks::IgnoredWithStates, ..one(layer, &["forward_layer/cell", "backward_layer/cell"]) })
}

/// A layer inside of `Bidirectional`. What it puts out for absent steps is the wrapper's to say.
fn direction(o: &mut Options<'_>, key: &'static str) -> Result<Option<LayerConfig>> {
    let Some((class, config)) = o.optional_object(key)? else { return Ok(None) };
    let mut inner = Options::new(o.path(), key, class, config);
    if !matches!(class, "SimpleRNN" | "LSTM" | "GRU" | "RNN") {
        return Err(o.unsupported(key, "a SimpleRNN, LSTM, GRU, or an RNN of one cell"));
    }
    let Translated { mut pieces, .. } = recurrent(class, &mut inner)?;
    inner.end()?;
    match (pieces.pop(), pieces.is_empty()) {
        (Some(piece), true) => Ok(Some(piece.layer)),
        _ => Err(o.unsupported(key, "a SimpleRNN, LSTM, GRU, or an RNN of one cell")),
    }
}

/// Whether two layers compute the same outside of training.
fn same_function(a: &LayerConfig, b: &LayerConfig) -> bool {
    let plain = |layer: &LayerConfig| {
        let mut layer = layer.clone();
        if let Some(recurrent) = layer.as_recurrent_mut() {
            let options = recurrent.options_mut();
            (options.dropout, options.recurrent_dropout) = (0.0, 0.0);
        }
        if let LayerConfig::Lstm(lstm) = &mut layer {
            lstm.unit_forget_bias = true;
        }
        layer
    };
    plain(a) == plain(b)
}

/// A layer for every step, or a stack of layers for every step.
fn time_distributed(o: &mut Options<'_>) -> Result<Translated> {
    let (class, config) = o.object("layer")?;
    let wrapped = |class: &str, config: &Map<String, Value>, at: &str| -> Result<Vec<Piece>> {
        let name = config.get("name").and_then(Value::as_str).unwrap_or("in it");
        let inner = Options::new(o.path(), name, class, config);
        let Translated { pieces, .. } = translate(class, inner, &Map::new(), None)?;
        let wrap = |piece: Piece| Piece {
            layer: TimeDistributed::new(piece.layer).into(),
            groups: piece
                .groups
                .iter()
                .map(|group| if group.is_empty() { at.to_owned() } else { format!("{at}/{group}") })
                .collect(),
        };
        Ok(pieces.into_iter().map(wrap).collect())
    };
    let mut pieces = Vec::new();
    if class == "Sequential" {
        let layers = config.get("layers").and_then(Value::as_array).ok_or_else(|| o.invalid("layer", "layers"))?;
        let mut counters = super::names::Counters::default();
        for value in layers {
            let (class, config) =
                super::options::object(value).ok_or_else(|| o.invalid("layer", "layers with class_name and config"))?;
            if class == "InputLayer" {
                continue;
            }
            pieces.extend(wrapped(class, config, &format!("layer/layers/{}", counters.next(class)))?);
        }
    } else {
        pieces = wrapped(class, config, "layer")?;
    }
    Ok(Translated { pieces, masks: Masks::Alike })
}
