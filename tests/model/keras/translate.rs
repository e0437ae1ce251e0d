//! Keras's configurations in this crate's words. What the crate has not is an `Err` that says so.

use fused_rnn::nn::*;
use serde_json::Value;

use super::case::Options;

type Translated<T> = Result<T, String>;

pub fn activation(value: &Value) -> Translated<ActivationFunction> {
    let name = value.as_str().unwrap_or("linear");
    serde_json::from_value(Value::from(name)).map_err(|_| format!("activation {name}"))
}

/// The layer of a class, with what is said of it where it is made (`config`) and where it is called (`call`).
pub fn layer(class: &str, config: &Value, call: &Value) -> Translated<LayerConfig> {
    let mut options = Options::new(class, config);
    let mut call = Options::new(&format!("a call of {class}"), call);
    let o = &mut options;
    let made: LayerConfig = match class {
        "SimpleRNN" | "LSTM" | "GRU" => {
            // What masked steps return is for the layer around it to say.
            let zeros = o.flag("zero_output_for_mask");
            let layer = recurrent(class, o)?;
            if zeros {
                return Err(format!("{class} with zero_output_for_mask"));
            }
            layer
        }
        "Bidirectional" => {
            let (forward, backward) = (o.take("layer"), o.take("backward_layer"));
            let (mut a, mut b) = (both(&forward)?, both(&backward)?);
            let (class, there) = (forward["class"].as_str().unwrap_or(""), &mut a);
            if !backward["config"]["go_backwards"].as_bool().unwrap_or(false) {
                return Err("Bidirectional with two layers of one direction".to_owned());
            }
            if there.flag("go_backwards") || !b.flag("go_backwards") {
                return Err("Bidirectional of a layer that goes backwards".to_owned());
            }
            if forward["class"] != backward["class"] || !same(&forward["config"], &backward["config"]) {
                return Err("Bidirectional with a layer of its own for each direction".to_owned());
            }
            let mut inner = Options::new(class, &forward["config"]);
            inner.flag("zero_output_for_mask");
            let inner_layer = recurrent(class, &mut inner)?;
            inner.end()?;
            let mode = match o.text("merge_mode").as_str() {
                "concat" => MergeMode::Concat,
                "sum" => MergeMode::Sum,
                "mul" => MergeMode::Mul,
                "ave" => MergeMode::Ave,
                other => return Err(format!("Bidirectional with merge_mode {other}")),
            };
            Bidirectional::new(inner_layer).merge_mode(mode).into()
        }
        "TimeDistributed" => {
            let inner = o.take("layer");
            TimeDistributed::new(layer(inner["class"].as_str().unwrap_or(""), &inner["config"], &Value::Null)?).into()
        }
        "Dense" => {
            let mut layer = Dense::new(o.size("units")).use_bias(o.flag("use_bias"));
            (layer.kernel, layer.bias) = (weight_options(o, "kernel"), weight_options(o, "bias"));
            layer.activity_regularizer = regularizer(o.optional("activity_regularizer"));
            layer.activation(activation(&o.take("activation"))?).into()
        }
        "Activation" => ActivationLayer::new(activation(&o.take("activation"))?).into(),
        "Embedding" => {
            let mut layer = Embedding::new(o.size("input_dim"), o.size("output_dim")).mask_zero(o.flag("mask_zero"));
            layer.embeddings = weight_options(o, "embeddings");
            layer.activity_regularizer = regularizer(o.optional("activity_regularizer"));
            layer.into()
        }
        "LeakyReLU" => Elementwise::new(Function::LeakyRelu { alpha: o.number("negative_slope") }).into(),
        "PReLU" => {
            let shared: Option<Vec<usize>> = serde_json::from_value(o.take("shared_axes")).expect("whole numbers");
            let layer = PRelu::new().shared_axes(&shared.unwrap_or_default());
            PRelu { alpha: weight_options(o, "alpha"), ..layer }.into()
        }
        "Softmax" => Softmax::new().axis(o.take("axis").as_i64().expect("a whole number")).into(),
        "ZeroPadding1D" => {
            o.only("data_format", "channels_last")?;
            let (before, after) = serde_json::from_value(o.take("padding")).expect("two numbers");
            ZeroPadding1D::new(before, after).into()
        }
        "Cropping1D" => {
            let (before, after) = serde_json::from_value(o.take("cropping")).expect("two numbers");
            Cropping1D::new(before, after).into()
        }
        "UpSampling1D" => UpSampling1D::new(o.size("size")).into(),
        "Masking" => Masking::new(o.number("mask_value")).into(),
        "Dropout" => {
            o.only("noise_shape", Value::Null)?;
            Dropout::new(o.number("rate")).into()
        }
        "SpatialDropout1D" => {
            o.optional("noise_shape");
            SpatialDropout1D::new(o.number("rate")).into()
        }
        "GaussianNoise" => GaussianNoise::new(o.number("stddev")).into(),
        "GaussianDropout" => GaussianDropout::new(o.number("rate")).into(),
        "BatchNormalization" => {
            o.only("axis", -1)?;
            let mut layer = BatchNormalization::new();
            (layer.momentum, layer.epsilon) = (o.number("momentum"), o.number("epsilon"));
            (layer.center, layer.scale) = (o.flag("center"), o.flag("scale"));
            layer.into()
        }
        "LayerNormalization" => {
            let axis = o.take("axis");
            if axis != -1 && axis != Value::from(vec![-1]) {
                return Err(format!("LayerNormalization over axis {axis}"));
            }
            if o.optional("rms_scaling").is_some_and(|v| v != false) {
                return Err("LayerNormalization with rms_scaling".to_owned());
            }
            let mut layer = LayerNormalization::new().epsilon(o.number("epsilon"));
            (layer.center, layer.scale) = (o.flag("center"), o.flag("scale"));
            layer.into()
        }
        "GlobalAveragePooling1D" | "GlobalMaxPooling1D" => {
            o.only("data_format", "channels_last")?;
            o.only("keepdims", false)?;
            match class {
                "GlobalMaxPooling1D" => GlobalMaxPooling1D::new().into(),
                _ => GlobalAveragePooling1D::new().into(),
            }
        }
        "AveragePooling1D" | "MaxPooling1D" => {
            o.only("data_format", "channels_last")?;
            let padding = padding(o)?;
            o.optional("name");
            let (size, strides) = (first(&o.take("pool_size")), first(&o.take("strides")));
            match class {
                "MaxPooling1D" => MaxPooling1D::new(size).strides(strides).padding(padding).into(),
                _ => AveragePooling1D::new(size).strides(strides).padding(padding).into(),
            }
        }
        "Conv1D" => {
            o.only("data_format", "channels_last")?;
            let mut layer = Conv1D::new(o.size("filters"), first(&o.take("kernel_size")));
            (layer.kernel, layer.bias) = (weight_options(o, "kernel"), weight_options(o, "bias"));
            layer.activity_regularizer = regularizer(o.optional("activity_regularizer"));
            let layer = layer.strides(first(&o.take("strides"))).padding(padding(o)?);
            let layer = layer.dilation_rate(first(&o.take("dilation_rate"))).groups(o.size("groups"));
            layer.activation(activation(&o.take("activation"))?).use_bias(o.flag("use_bias")).into()
        }
        "Reshape" => {
            let shape: Vec<i64> = serde_json::from_value(o.take("target_shape")).expect("whole numbers");
            Reshape::new(&shape).into()
        }
        "Flatten" => {
            o.only("data_format", "channels_last")?;
            Flatten::new().into()
        }
        "Permute" => {
            let dims: Vec<usize> = serde_json::from_value(o.take("dims")).expect("whole numbers");
            Permute::new(&dims).into()
        }
        "RepeatVector" => RepeatVector::new(o.size("n")).into(),
        "Add" => Add::new().into(),
        "Subtract" => Subtract::new().into(),
        "Multiply" => Multiply::new().into(),
        "Average" => Average::new().into(),
        "Maximum" => Maximum::new().into(),
        "Concatenate" => {
            o.only("axis", -1)?;
            Concatenate::new().into()
        }
        "Attention" => {
            o.only("score_mode", "dot")?;
            let mut layer = Attention::new().use_scale(o.flag("use_scale"));
            layer.dropout = o.number("dropout");
            (layer.causal, layer.return_attention_scores) = attention_call(&mut call);
            layer.into()
        }
        "AdditiveAttention" => {
            o.optional("score_mode");
            let mut layer = AdditiveAttention::new().use_scale(o.flag("use_scale"));
            layer.dropout = o.number("dropout");
            (layer.causal, layer.return_attention_scores) = attention_call(&mut call);
            layer.into()
        }
        "MultiHeadAttention" => {
            let mut layer = MultiHeadAttention::new(o.size("num_heads"), o.size("key_dim"));
            layer.value_dim = Some(o.size("value_dim"));
            layer.use_bias = o.flag("use_bias");
            layer.dropout = o.number("dropout");
            o.only("attention_axes", Value::from(vec![1]))?;
            o.only("use_gate", false)?;
            o.only("sliding_window", Value::Null)?;
            layer.output_dim = match o.take("output_shape") {
                Value::Null => None,
                shape => Some(first(&shape)),
            };
            (layer.causal, layer.return_attention_scores) = attention_call(&mut call);
            layer.into()
        }
        other => return Err(format!("layer {other}")),
    };
    call.end()?;
    options.end()?;
    Ok(made)
}

/// Regularizer and constraint of a weight.
fn weight_options(o: &mut Options, word: &str) -> WeightOptions {
    WeightOptions {
        initializer: None,
        regularizer: regularizer(o.optional(&format!("{word}_regularizer"))),
        constraint: o.optional(&format!("{word}_constraint")).as_ref().map(constraint),
    }
}

fn regularizer(value: Option<Value>) -> Option<Regularizer> {
    let number = |config: &Value, key: &str| config[key].as_f64().unwrap_or(0.0);
    value.map(|value| Regularizer::l1_l2(number(&value["config"], "l1"), number(&value["config"], "l2")))
}

fn constraint(value: &Value) -> Constraint {
    let config = &value["config"];
    let number = |key: &str| config[key].as_f64().expect("a number");
    let axes = || match &config["axis"] {
        Value::Array(axes) => axes.iter().map(|axis| axis.as_u64().expect("an axis") as usize).collect(),
        axis => vec![axis.as_u64().expect("an axis") as usize],
    };
    match value["class"].as_str().expect("a class") {
        "NonNeg" => Constraint::NonNegative,
        "MaxNorm" => Constraint::MaxNorm { max_value: number("max_value"), axes: axes() },
        "UnitNorm" => Constraint::UnitNorm { axes: axes() },
        "MinMaxNorm" => {
            let (min_value, max_value, rate) = (number("min_value"), number("max_value"), number("rate"));
            Constraint::MinMaxNorm { min_value, max_value, rate, axes: axes() }
        }
        other => panic!("constraint {other}"),
    }
}

/// An initializer by Keras's class and options.
pub fn initializer(value: &Value) -> Initializer {
    let number = |key: &str| value["config"][key].as_f64().expect("a number");
    match value["class"].as_str().expect("a class") {
        "Zeros" => Initializer::Zeros,
        "Ones" => Initializer::Ones,
        "Constant" => Initializer::Constant { value: number("value") },
        "RandomNormal" => Initializer::RandomNormal { mean: number("mean"), stddev: number("stddev") },
        "RandomUniform" => Initializer::RandomUniform { minval: number("minval"), maxval: number("maxval") },
        "TruncatedNormal" => Initializer::TruncatedNormal { mean: number("mean"), stddev: number("stddev") },
        "GlorotUniform" => Initializer::GlorotUniform,
        "GlorotNormal" => Initializer::GlorotNormal,
        "HeUniform" => Initializer::HeUniform,
        "HeNormal" => Initializer::HeNormal,
        "LecunUniform" => Initializer::LecunUniform,
        "LecunNormal" => Initializer::LecunNormal,
        "Orthogonal" => Initializer::Orthogonal { gain: number("gain") },
        "Identity" => Initializer::Identity { gain: number("gain") },
        other => panic!("initializer {other}"),
    }
}

fn both(inner: &Value) -> Translated<Options> {
    Ok(Options::new(inner["class"].as_str().unwrap_or(""), &inner["config"]))
}

/// Whether two directions have the same options but for the direction.
fn same(a: &Value, b: &Value) -> bool {
    let without = |v: &Value| {
        let mut map = v.as_object().cloned().unwrap_or_default();
        map.remove("go_backwards");
        map
    };
    without(a) == without(b)
}

fn padding(o: &mut Options) -> Translated<Padding> {
    let name = o.text("padding");
    serde_json::from_value(Value::from(name.as_str())).map_err(|_| format!("padding {name}"))
}

/// A number, or that in a list of one.
fn first(value: &Value) -> usize {
    value.as_u64().or_else(|| value[0].as_u64()).expect("a size") as usize
}

fn attention_call(call: &mut Options) -> (bool, bool) {
    let mut flag = |key: &str| call.optional(key).is_some_and(|v| v.as_bool().expect("a flag"));
    (flag("use_causal_mask"), flag("return_attention_scores"))
}

fn recurrent(class: &str, o: &mut Options) -> Translated<LayerConfig> {
    let units = o.size("units");
    let function = activation(&o.take("activation"))?;
    let use_bias = o.flag("use_bias");
    let options = RecurrentOptions {
        return_sequences: o.flag("return_sequences"),
        return_state: o.flag("return_state"),
        go_backwards: o.flag("go_backwards"),
        stateful: o.flag("stateful"),
        dropout: o.number("dropout"),
        recurrent_dropout: o.number("recurrent_dropout"),
        kernel: weight_options(o, "kernel"),
        recurrent: weight_options(o, "recurrent"),
        bias: weight_options(o, "bias"),
        activity_regularizer: regularizer(o.optional("activity_regularizer")),
        ..RecurrentOptions::default()
    };
    Ok(match class {
        "SimpleRNN" => {
            let layer = SimpleRnn::new(units).activation(function).use_bias(use_bias);
            SimpleRnn { options, ..layer }.into()
        }
        "LSTM" => {
            let layer = Lstm::new(units).activation(function).use_bias(use_bias);
            let layer = layer.recurrent_activation(activation(&o.take("recurrent_activation"))?);
            let layer = layer.with_unit_forget_bias(o.flag("unit_forget_bias"));
            Lstm { options, ..layer }.into()
        }
        "GRU" => {
            let layer = Gru::new(units).activation(function).use_bias(use_bias);
            let layer = layer.recurrent_activation(activation(&o.take("recurrent_activation"))?);
            let layer = layer.reset_after(o.flag("reset_after"));
            Gru { options, ..layer }.into()
        }
        other => return Err(format!("a recurrent layer {other}")),
    })
}
