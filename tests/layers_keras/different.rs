//! Where this crate differs from Keras on purpose, or has not what Keras has: each case with what is then said of it. A case that no longer
//! differs fails, so that the list stays true.

/// What the problem of a case is, if it is one of these.
pub fn expected(case: &str) -> Option<&'static str> {
    DIFFERENT.iter().find(|(name, _)| *name == case).map(|(_, problem)| *problem)
}

#[rustfmt::skip]
const DIFFERENT: &[(&str, &str)] = &[
    // Options and layers that this crate has not.
    ("activation_exponential", "activation exponential"),
    ("activation_gelu", "activation gelu"),
    ("activation_relu6", "activation relu6"),
    ("activation_silu", "activation silu"),
    ("attention_concat", "score_mode \"concat\""),
    ("average_pooling_1d_same", "padding \"same\""),
    ("max_pooling_1d_same", "padding \"same\""),
    ("bidirectional_two_layers", "a layer of its own for each direction"),
    ("concatenate_time", "axis 1"),
    ("concatenate_time_masks", "axis 1"),
    ("dot_context", "layer Dot"),
    ("dot_scores", "layer Dot"),
    ("dot_vector_sequence", "layer Dot"),
    ("dot_vectors", "layer Dot"),
    ("dot_vectors_normalize", "layer Dot"),
    ("global_average_pooling_1d_keepdims", "keepdims true"),
    ("global_max_pooling_1d_keepdims", "keepdims true"),
    ("leaky_relu", "layer LeakyReLU"),
    ("minimum", "layer Minimum"),
    ("minimum_three", "layer Minimum"),
    ("multi_head_attention_attention_mask", "an attention_mask"),
    ("softmax", "layer Softmax"),
    ("add_broadcast", "expected inputs of one shape"),
    ("multiply_broadcast", "expected inputs of one shape"),
    ("callback_early_stopping_baseline", "baseline"),
    ("callback_early_stopping_max", "watches another figure"),
    ("callback_early_stopping_start", "start_from_epoch"),
    ("optimizer_sgd_clipnorm", "clipnorm"),
    ("model_shared_sample_weights", "differ from output to output"),
    // Keras leaves out the mask of a sequence that comes with initial states; here absent steps stay absent.
    ("gru_mask_empty_states", "y0[0"),
    ("gru_mask_holes_states", "y0[0"),
    ("lstm_mask_empty_states", "y0[0"),
    ("lstm_mask_holes_states", "y0[0"),
    ("simplernn_mask_empty_states", "y0[0"),
    ("simplernn_mask_holes_states", "y0[0"),
    ("model_bahdanau", "y[0, 2, 0]"),
    ("model_encoder_decoder_words", "y[0, 2, 0]"),
    ("model_luong", "y[0, 2, 0]"),
    // Where time runs backwards, Keras hands on the mask as it came, beside an output in the opposite order; here it is turned with it.
    ("gru_mask_holes_backwards_sequences", "mask on the output"),
    ("gru_mask_right_backwards_sequences", "mask on the output"),
    ("lstm_mask_holes_backwards_sequences", "mask on the output"),
    ("lstm_mask_right_backwards_sequences", "mask on the output"),
    ("simplernn_mask_holes_backwards_sequences", "mask on the output"),
    ("simplernn_mask_right_backwards_sequences", "mask on the output"),
    // Keras's sparse cross-entropy of probabilities clips to logarithms before it normalises.
    ("loss_sparse_certain", "loss: 5.83"),
    // What an absent query gets from multi-head attention: Keras masks its whole row, and so lets it look at all keys, absent ones too.
    ("multi_head_attention_causal_mask", "y[0, 3, 0]"),
    ("multi_head_attention_mask", "y[0, 3, 0]"),
    ("multi_head_attention_mask_scores", "y0[0, 1, 0]"),
];
