//! What the crate has not, and what it does otherwise than Keras: each case by name.

/// Cases that need what the crate has not, with a part of what the tests say of them.
const ABSENT: &[(&str, &str)] = &[
    ("add_broadcast", "inputs of one shape"),
    ("multiply_broadcast", "inputs of one shape"),
    ("attention_concat", "score_mode"),
    ("bidirectional_two_layers", "a layer of its own for each direction"),
    ("concatenate_time", "axis 1"),
    ("concatenate_time_masks", "axis 1"),
    ("dot_context", "layer Dot"),
    ("dot_scores", "layer Dot"),
    ("dot_vector_sequence", "layer Dot"),
    ("dot_vectors", "layer Dot"),
    ("dot_vectors_normalize", "layer Dot"),
    ("global_average_pooling_1d_keepdims", "keepdims"),
    ("global_max_pooling_1d_keepdims", "keepdims"),
    ("minimum", "layer Minimum"),
    ("minimum_three", "layer Minimum"),
    ("multi_head_attention_attention_mask", "attention_mask"),
    ("optimizer_sgd_clipnorm", "clipnorm"),
    ("callback_early_stopping_baseline", "baseline"),
    ("callback_early_stopping_max", "watches another figure"),
    ("callback_early_stopping_start", "start_from_epoch"),
];

/// What the tests say of a case that needs something absent.
pub fn absent(case: &str) -> Option<&'static str> {
    ABSENT.iter().find(|(name, _)| *name == case).map(|(_, problem)| *problem)
}

/// Every name above.
pub fn names() -> impl Iterator<Item = &'static str> {
    let lists = [INFERENCE, SINGLE, COUNTED, STATES_WITHOUT_MASK, BACKWARDS, MASKED_QUERIES];
    ABSENT.iter().map(|(name, _)| *name).chain(lists.into_iter().flatten().copied())
}

/// Passes without training of layers that do something else in training. Gradients of the crate are always those of training.
pub const INFERENCE: &[&str] = &[
    "batch_normalization_inference_2d",
    "batch_normalization_inference_3d",
    "batch_normalization_mask_inference",
    "dropout_inference",
    "gaussian_dropout_inference",
    "gaussian_noise_inference",
    "spatial_dropout_1d_inference",
];

/// Cases with a constant that Keras on TensorFlow rounds to single precision: the slope of a leaky ReLU, the root of 2 in a GELU, and
/// `1 / sqrt(key_dim)` where that is no power of two. It is off by at most half of 2^-23 of itself, and what follows from it by not more than a few times
/// that: 16 of 2^-24 are allowed.
pub const SINGLE: &[&str] = &[
    "activation_gelu",
    "activation_leaky_relu",
    "dense_gelu",
    "leaky_relu",
    "multi_head_attention",
    "multi_head_attention_causal",
    "multi_head_attention_causal_mask",
    "multi_head_attention_cross",
    "multi_head_attention_cross_key",
    "multi_head_attention_cross_value_mask",
    "multi_head_attention_mask",
    "multi_head_attention_mask_scores",
    "multi_head_attention_no_bias",
    "multi_head_attention_one_head",
    "multi_head_attention_output_shape",
    "multi_head_attention_scores",
    "multi_head_attention_value_dim",
    "model_transformer_causal",
    "model_transformer_pre_norm",
    "model_transformer_time_series",
];

/// Cases in which Keras adds 1e-7 to the number of valid steps that it divides by, of which there are 8 at least: moments are off by
/// 1.3e-8 of themselves, what follows from them by a few times that, for which 1e-6 leaves room.
pub const COUNTED: &[&str] =
    &["batch_normalization_mask_empty", "batch_normalization_mask_holes", "batch_normalization_mask_right"];

/// Layers given initial states and a mask. Keras drops the mask there (with two tensors as arguments it looks for an argument
/// `sequences_mask`, which its layers have not) but hands it on; this crate leaves the steps out. The tests take the mask off the
/// input, and then everything is as in Keras.
pub const STATES_WITHOUT_MASK: &[&str] = &[
    "gru_mask_empty_states",
    "gru_mask_holes_states",
    "lstm_mask_empty_states",
    "lstm_mask_holes_states",
    "simplernn_mask_empty_states",
    "simplernn_mask_holes_states",
    "model_bahdanau",
    "model_encoder_decoder_words",
    "model_luong",
];

/// Sequences put out backwards, with a mask. Keras hands the mask on as it came in, so that it does not belong to the steps it stands
/// at; this crate turns it round with them.
pub const BACKWARDS: &[&str] = &[
    "gru_mask_holes_backwards_sequences",
    "gru_mask_right_backwards_sequences",
    "lstm_mask_holes_backwards_sequences",
    "lstm_mask_right_backwards_sequences",
    "simplernn_mask_holes_backwards_sequences",
    "simplernn_mask_right_backwards_sequences",
];

/// Queries that a mask says are absent. Keras has multi-head attention look at every key there, since it subtracts the same large number
/// from all their scores; here the mask of the query says nothing about the keys. Outputs of
/// valid queries are compared, and the weights of the others must leave absent keys out; gradients are not.
pub const MASKED_QUERIES: &[&str] =
    &["multi_head_attention_causal_mask", "multi_head_attention_mask", "multi_head_attention_mask_scores"];

/// How far results of a case may be apart, as a part of the largest size.
pub fn tolerance(case: &str) -> f64 {
    if SINGLE.contains(&case) {
        16.0 / f64::from(1 << 24)
    } else if COUNTED.contains(&case) {
        1e-6
    } else {
        super::compare::TOLERANCE
    }
}
