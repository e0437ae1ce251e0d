// The C interface of fused-rnn: recurrent operators with their backward passes. docs/c.md shows its use.
//
// Made by cbindgen from bindings/c/src: `cargo test --manifest-path bindings/Cargo.toml -p fused-rnn-header` compares it, and with
// FUSED_RNN_WRITE_HEADER=1 writes it.

#ifndef FUSED_RNN_H
#define FUSED_RNN_H

#include <stddef.h>
#include <stdint.h>

// What a call returns. The thread's `frnn_last_error` says what was wrong, and what to do.
enum frnn_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // All went well.
  FRNN_STATUS_OK = 0,
  // A pointer is null that must not be.
  FRNN_STATUS_NULL_POINTER = 1,
  // A tensor has another number of elements than the operator needs.
  FRNN_STATUS_SHAPE = 2,
  // A tensor is given that the operator has not, or missing where it is needed.
  FRNN_STATUS_PRESENCE = 3,
  // A size is zero that must be at least one.
  FRNN_STATUS_ZERO_SIZE = 4,
  // The bytes of a tensor do not fit the address space.
  FRNN_STATUS_SIZE_OVERFLOW = 5,
  // The length of a sequence lies outside 1 to `seq_len`.
  FRNN_STATUS_SEQUENCE_LENGTH = 6,
  // An option has a value that it cannot have, alone or beside the others.
  FRNN_STATUS_INVALID_OPTION = 7,
  // This build or this machine cannot do what was asked.
  FRNN_STATUS_UNSUPPORTED = 8,
  // A tensor does not begin at a multiple of its element's size.
  FRNN_STATUS_ALIGNMENT = 9,
  // A tensor that is written overlaps another.
  FRNN_STATUS_OVERLAP = 10,
  // The reserve was filled under another plan.
  FRNN_STATUS_RESERVE_MISMATCH = 11,
  // The reserve is not at the stage that the call needs: no forward pass has filled it, or a backward pass has used it.
  FRNN_STATUS_RESERVE_STAGE = 12,
  // Another thread uses the reserve at this moment.
  FRNN_STATUS_BUSY = 13,
  // The GPU's driver refused a call, or reports a fault of earlier work.
  FRNN_STATUS_DRIVER = 14,
  // A kernel gave up.
  FRNN_STATUS_KERNEL_FAULT = 15,
  // A struct is smaller than the first version of this interface has it: its `size` is not set.
  FRNN_STATUS_STRUCT_SIZE = 16,
  // A mistake of this library, which is not to happen.
  FRNN_STATUS_INTERNAL = 17,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_status frnn_status;
#else
typedef uint32_t frnn_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The cells.
enum frnn_cell
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The simple RNN.
  FRNN_CELL_RNN = 0,
  // LSTM.
  FRNN_CELL_LSTM = 1,
  // GRU.
  FRNN_CELL_GRU = 2,
  // sLSTM, of xLSTM.
  FRNN_CELL_SLSTM = 3,
  // The minimal gated unit.
  FRNN_CELL_MGU = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_cell frnn_cell;
#else
typedef uint32_t frnn_cell;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Types of elements. The CPU has the first two.
enum frnn_dtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // 32 bits.
  FRNN_DTYPE_F32 = 0,
  // 64 bits.
  FRNN_DTYPE_F64 = 1,
  // IEEE's 16 bits.
  FRNN_DTYPE_F16 = 2,
  // The upper half of 32 bits.
  FRNN_DTYPE_BF16 = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_dtype frnn_dtype;
#else
typedef uint32_t frnn_dtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a plan is for.
enum frnn_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Forward only; no dropout, no reserve.
  FRNN_MODE_INFERENCE = 0,
  // Forward with dropout and a reserve, then backward.
  FRNN_MODE_TRAINING = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_mode frnn_mode;
#else
typedef uint32_t frnn_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Direction of the time loop.
enum frnn_directions
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // From the first step to the last.
  FRNN_DIRECTIONS_FORWARD = 0,
  // From the last valid step to the first.
  FRNN_DIRECTIONS_REVERSE = 1,
  // Both; `y` holds the forward features first.
  FRNN_DIRECTIONS_BIDIRECTIONAL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_directions frnn_directions;
#else
typedef uint32_t frnn_directions;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Which bias vectors a layer has.
enum frnn_biases
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `bias_ih` and `bias_hh`, as PyTorch and ONNX.
  FRNN_BIASES_DOUBLE = 0,
  // `bias_ih` only, as Keras.
  FRNN_BIASES_SINGLE = 1,
  // None.
  FRNN_BIASES_NONE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_biases frnn_biases;
#else
typedef uint32_t frnn_biases;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Order of the axes of `x`, `y` and their gradients.
enum frnn_axes
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `[seq_len, batch, features]`.
  FRNN_AXES_SEQUENCE_MAJOR = 0,
  // `[batch, seq_len, features]`.
  FRNN_AXES_BATCH_MAJOR = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_axes frnn_axes;
#else
typedef uint32_t frnn_axes;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What `x` holds.
enum frnn_input
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Features.
  FRNN_INPUT_FEATURES = 0,
  // `W x` of every gate, computed elsewhere; there is no `weight_ih`.
  FRNN_INPUT_GATES = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_input frnn_input;
#else
typedef uint32_t frnn_input;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where the GRU applies its reset gate.
enum frnn_reset
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // After the recurrent product: PyTorch, Keras's default.
  FRNN_RESET_AFTER = 0,
  // Before it: ONNX's default.
  FRNN_RESET_BEFORE = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_reset frnn_reset;
#else
typedef uint32_t frnn_reset;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The forget gate of the sLSTM.
enum frnn_forget
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `sigmoid(a)`.
  FRNN_FORGET_SIGMOID = 0,
  // `exp(a)`.
  FRNN_FORGET_EXPONENTIAL = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_forget frnn_forget;
#else
typedef uint32_t frnn_forget;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What `y` holds past the end of a sequence.
enum frnn_padded
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Zeros.
  FRNN_PADDED_ZERO = 0,
  // The last valid output.
  FRNN_PADDED_HOLD = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_padded frnn_padded;
#else
typedef uint32_t frnn_padded;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What training keeps from forward to backward.
enum frnn_keep
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Everything.
  FRNN_KEEP_FULL = 0,
  // The states before every `memory_value`-th step.
  FRNN_KEEP_CHECKPOINTS = 1,
  // Also the states beside h of every step.
  FRNN_KEEP_LIGHT = 2,
  // What fits `memory_value` bytes.
  FRNN_KEEP_WITHIN = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_keep frnn_keep;
#else
typedef uint32_t frnn_keep;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Activation functions, with ONNX's names and constants.
enum frnn_function
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // `tanh(x)`.
  FRNN_FUNCTION_TANH = 0,
  // `1 / (1 + exp(-x))`.
  FRNN_FUNCTION_SIGMOID = 1,
  // `max(x, 0)`.
  FRNN_FUNCTION_RELU = 2,
  // `clamp(alpha * x + beta, 0, 1)`.
  FRNN_FUNCTION_HARD_SIGMOID = 3,
  // `x / (1 + |x|)`.
  FRNN_FUNCTION_SOFTSIGN = 4,
  // `ln(1 + exp(x))`.
  FRNN_FUNCTION_SOFTPLUS = 5,
  // `x` above zero, `alpha * (exp(x) - 1)` below.
  FRNN_FUNCTION_ELU = 6,
  // The ELU with the constants of its paper.
  FRNN_FUNCTION_SELU = 7,
  // `x` above zero, `alpha * x` below.
  FRNN_FUNCTION_LEAKY_RELU = 8,
  // `x` above `alpha`, else zero.
  FRNN_FUNCTION_THRESHOLDED_RELU = 9,
  // `alpha * tanh(beta * x)`.
  FRNN_FUNCTION_SCALED_TANH = 10,
  // `alpha * x + beta`.
  FRNN_FUNCTION_AFFINE = 11,
  // `x`.
  FRNN_FUNCTION_LINEAR = 12,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_function frnn_function;
#else
typedef uint32_t frnn_function;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What operands of products of f32 are rounded to on a GPU.
enum frnn_rounding
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Not at all.
  FRNN_ROUNDING_EXACT = 0,
  // To tf32, for the tensor cores.
  FRNN_ROUNDING_TF32 = 1,
  // Mixed precision in bf16.
  FRNN_ROUNDING_BF16 = 2,
  // Mixed precision in f16.
  FRNN_ROUNDING_F16 = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum frnn_rounding frnn_rounding;
#else
typedef uint32_t frnn_rounding;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Where plans run.
typedef struct frnn_backend frnn_backend;

// A plan, and the names of its weights.
typedef struct frnn_plan frnn_plan;

// Memory for what training keeps, and a mark of the call that was made with it last.
typedef struct frnn_reserve frnn_reserve;

// An activation function: one of `frnn_function`, and its constants where it has such.
typedef struct frnn_activation {
  // One of `frnn_function`.
  uint32_t function;
  // Its first constant.
  double alpha;
  // Its second constant.
  double beta;
} frnn_activation;

// The functions of a cell.
typedef struct frnn_activations {
  // Of the gates.
  struct frnn_activation gate;
  // Of the candidate state.
  struct frnn_activation state;
  // Of the LSTM's cell state on its way to the output.
  struct frnn_activation output;
} frnn_activations;

// An operator: its cell, its options, and the sizes that its weights have. `frnn_descriptor_default` fills it.
typedef struct frnn_descriptor {
  // Bytes of this struct, as the caller was compiled with it.
  size_t size;
  // One of `frnn_cell`.
  uint32_t cell;
  // One of `frnn_input`.
  uint32_t input;
  // Features of `x`; where the input is gates, directions * gates * `hidden_size`.
  size_t input_size;
  // Units of every layer and direction.
  size_t hidden_size;
  // Blocks of the recurrent weights; 1 for full ones, as many as units for the IndRNN.
  size_t heads;
  // Stacked layers.
  size_t num_layers;
  // Width of the LSTM's projection, or 0 for none.
  size_t proj_size;
  // One of `frnn_directions`.
  uint32_t direction;
  // One of `frnn_biases`.
  uint32_t bias;
  // One of `frnn_axes`.
  uint32_t layout;
  // GRU: one of `frnn_reset`.
  uint32_t reset;
  // sLSTM: one of `frnn_forget`.
  uint32_t forget_gate;
  // One of `frnn_padded`.
  uint32_t padded_output;
  // LSTM: 1 for peepholes.
  uint32_t peepholes;
  // LSTM: 1 for `f = 1 - i`.
  uint32_t coupled_input_forget;
  // One of `frnn_keep`.
  uint32_t memory;
  // 1 where the second direction has `reverse_activations`.
  uint32_t has_reverse_activations;
  // Steps between checkpoints, or bytes.
  size_t memory_value;
  // Activation functions.
  struct frnn_activations activations;
  // Those of the second direction, where `has_reverse_activations` is 1.
  struct frnn_activations reverse_activations;
  // Probability of dropping an element between layers, in training.
  double dropout;
  // Bound of the pre-activations, or 0 for none.
  double gate_clip;
  // LSTM: bound of the cell state, or 0 for none.
  double cell_clip;
} frnn_descriptor;

// All weights: one buffer, or an address for each tensor in the order of the layout.
typedef struct frnn_weights {
  // The first element of one buffer with all weights, or null.
  const void *data;
  // Where `data` is null: the addresses of the tensors.
  const void *const *tensors;
  // Elements of the buffer, or the number of tensors.
  size_t len;
} frnn_weights;

// Sizes of a plan's tensors, in elements, and their shapes. Tensors that the cell has not have 0 elements.
typedef struct frnn_sizes {
  // Bytes of this struct, as the caller was compiled with it.
  size_t size;
  // Bytes of an element.
  size_t element;
  // Elements of `x` and `dx`.
  size_t x;
  // Elements of `y` and `dy`.
  size_t y;
  // Elements of `h0`, `hn`, `dh0`, `dhn`.
  size_t h;
  // Elements of `c0`, `cn`, `dc0`, `dcn`.
  size_t c;
  // Elements of `lengths`, `uint32_t`.
  size_t lengths;
  // Elements of `resets`, `uint8_t`: `[seq_len, batch]`.
  size_t resets;
  // Elements of all weights.
  size_t weights;
  // Tensors that the weights are.
  size_t weight_tensors;
  // Elements of the workspace, at least.
  size_t workspace;
  // Elements of the reserve, at least; 0 for inference.
  size_t reserve;
  // `[seq_len, batch, input_size]`, or `[batch, seq_len, input_size]`.
  size_t x_shape[3];
  // The same with the output's width times directions.
  size_t y_shape[3];
  // `[layers * directions, batch, output width]`.
  size_t h_shape[3];
  // `[layers * directions, batch, width of the states beside h]`.
  size_t c_shape[3];
} frnn_sizes;

// One tensor of the weights.
typedef struct frnn_weight_info {
  // Bytes of this struct, as the caller was compiled with it.
  size_t size;
  // PyTorch's name, `weight_ih_l0`; it lives as long as the plan.
  const char *name;
  // Its first element in the buffer of all weights.
  size_t offset;
  // Its elements.
  size_t len;
  // Axes of its shape.
  size_t axes;
  // Its shape, row-major; 1 beyond its axes.
  size_t shape[4];
} frnn_weight_info;

// A tensor that is written: its first element, and how many there are. Null and 0 where it is absent.
typedef struct frnn_out {
  // The first element.
  void *data;
  // Elements, not bytes.
  size_t len;
} frnn_out;

// A tensor that is read: its first element, and how many there are. Null and 0 where it is absent.
typedef struct frnn_in {
  // The first element.
  const void *data;
  // Elements, not bytes.
  size_t len;
} frnn_in;

// Buffers of a forward call. Absent ones are null and 0. No two may overlap where one is written.
typedef struct frnn_forward_arguments {
  // Bytes of this struct, as the caller was compiled with it.
  size_t size;
  // Seed of the dropout masks; unused in inference.
  uint64_t dropout_seed;
  // CUDA: a `CUstream` or `cudaStream_t`, 0 for the default stream. On the CPU unused.
  uint64_t stream;
  // All weights; absent where the plan has them.
  struct frnn_weights weights;
  // Input.
  struct frnn_in x;
  // Initial output state; absent means zeros.
  struct frnn_in h0;
  // Initial states beside h; absent means zeros.
  struct frnn_in c0;
  // `uint32_t[batch]`, each 1 to `seq_len`; absent means `seq_len`.
  struct frnn_in lengths;
  // `uint8_t[seq_len * batch]`, non-zero where the state is set back to the initial one before the step; absent means nowhere.
  struct frnn_in resets;
  // Output, every element written.
  struct frnn_out y;
  // Final output state; absent if not wanted.
  struct frnn_out hn;
  // Final states beside h; absent if not wanted.
  struct frnn_out cn;
  // Scratch.
  struct frnn_out workspace;
} frnn_forward_arguments;

// Gradients of all weights, in the same two ways.
typedef struct frnn_weight_gradients {
  // The first element of one buffer for all gradients, or null.
  void *data;
  // Where `data` is null: the addresses of the tensors.
  void *const *tensors;
  // Elements of the buffer, or the number of tensors.
  size_t len;
  // 1 where gradients are added to what is there, 0 where they are set.
  uint32_t accumulate;
} frnn_weight_gradients;

// Buffers of the backward calls. What forward was given stands unchanged.
typedef struct frnn_backward_arguments {
  // Bytes of this struct, as the caller was compiled with it.
  size_t size;
  // CUDA: the stream, as in forward.
  uint64_t stream;
  // All weights; only for gradients of the data.
  struct frnn_weights weights;
  // Input of forward.
  struct frnn_in x;
  // Output of forward.
  struct frnn_in y;
  // As given to forward.
  struct frnn_in h0;
  // As given to forward.
  struct frnn_in c0;
  // As given to forward.
  struct frnn_in lengths;
  // As given to forward.
  struct frnn_in resets;
  // Gradient of `y`; absent means zeros. Only for gradients of the data, as are the next five.
  struct frnn_in dy;
  // Gradient of `hn`; absent means zeros.
  struct frnn_in dhn;
  // Gradient of `cn`; absent means zeros.
  struct frnn_in dcn;
  // Gradient of `x`, set; absent if not wanted.
  struct frnn_out dx;
  // Gradient of `h0`, set; absent if not wanted.
  struct frnn_out dh0;
  // Gradient of `c0`, set; absent if not wanted.
  struct frnn_out dc0;
  // Gradients of the weights; only for those.
  struct frnn_weight_gradients dweights;
  // Scratch.
  struct frnn_out workspace;
} frnn_backward_arguments;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Version of the library, such as `0.1.0`. It lives for ever.
const char *frnn_version(void);

// What was wrong with this thread's last call that failed, and what to do: a text that lives until its next failure. Empty where none has
// failed.
const char *frnn_last_error(void);

// Fills a descriptor with one forward layer of `cell` (one of `frnn_cell`) with PyTorch's defaults. `size` is `sizeof(frnn_descriptor)`.
//
// # Safety
//
// `descriptor` must be null or show to `size` bytes.
frnn_status frnn_descriptor_default(struct frnn_descriptor *descriptor, size_t size, uint32_t cell, size_t input_size, size_t hidden_size);

// Checks a descriptor, and says how many elements its weights have and how many tensors they are. Either place may be null.
//
// # Safety
//
// `descriptor` must be null or show to as many bytes as its `size` says; the places null or to memory for their values.
frnn_status frnn_descriptor_weights(const struct frnn_descriptor *descriptor, size_t *elements, size_t *tensors);

// The CPU, with at most so many threads, 0 for as many as the machine runs at once. One backend may serve a whole process; its
// threads start with the first problem that is worth them.
//
// # Safety
//
// `backend` must be null or show to memory for a pointer.
frnn_status frnn_backend_cpu(size_t threads, struct frnn_backend **backend);

// GPU number `ordinal`, in builds with CUDA. `compute` is one of `frnn_rounding`.
//
// # Safety
//
// `backend` must be null or show to memory for a pointer.
frnn_status frnn_backend_cuda(size_t ordinal, uint32_t compute, struct frnn_backend **backend);

// Frees a backend; plans made with it remain usable. Null is ignored.
//
// # Safety
//
// `backend` must be null or a live handle, which is one no more.
void frnn_backend_free(struct frnn_backend *backend);

// A plan for an operator of `dtype` (one of `frnn_dtype`), a shape and a `mode` (one of `frnn_mode`). It takes 15 to 30 microseconds on the
// CPU, so keep it. A GPU loads kernels in the order of `stream`. Plans may be used by several threads at a time.
//
// # Safety
//
// `backend` must be null or a live handle; `descriptor` null or show to as many bytes as its `size` says; `plan` null or to memory for
// a pointer.
frnn_status frnn_plan_new(const struct frnn_backend *backend,
                          const struct frnn_descriptor *descriptor,
                          uint32_t dtype,
                          size_t seq_len,
                          size_t batch,
                          uint32_t mode,
                          uint64_t stream,
                          struct frnn_plan **plan);

// A plan for inference with its weights, which are copied and packed once: for calls of few steps, whose `weights` are absent then. A new
// one is needed after the weights have changed. CPU only.
//
// # Safety
//
// `plan` must be null or a live handle; the weights' memory as long as it is said to be; `with_weights` null or show to memory for a
// pointer.
frnn_status frnn_plan_with_weights(const struct frnn_plan *plan, const struct frnn_weights *weights, struct frnn_plan **with_weights);

// Frees a plan. Null is ignored.
//
// # Safety
//
// `plan` must be null or a live handle, which is one no more.
void frnn_plan_free(struct frnn_plan *plan);

// Sizes and shapes of a plan's tensors. Set `sizes->size` before.
//
// # Safety
//
// `plan` must be null or a live handle; `sizes` null or show to as many bytes as its `size` says.
frnn_status frnn_plan_sizes(const struct frnn_plan *plan, struct frnn_sizes *sizes);

// Name, place and shape of tensor number `index` of the weights. Set `info->size` before.
//
// # Safety
//
// `plan` must be null or a live handle; `info` null or show to as many bytes as its `size` says.
frnn_status frnn_plan_weight(const struct frnn_plan *plan, size_t index, struct frnn_weight_info *info);

// A reserve for the training passes of a plan: `storage` of at least `frnn_sizes.reserve` elements, which must outlive it, or null and 0
// for memory of its own (CPU). It carries its stage: forward fills it, `frnn_backward_data` uses it up, and `frnn_backward_weights` needs
// it so. For a second backward over the same forward, run forward into it again.
//
// # Safety
//
// `plan` must be null or a live handle; `storage` as long as it is said to be; `reserve` null or show to memory for a pointer.
frnn_status frnn_reserve_new(const struct frnn_plan *plan, struct frnn_out storage, struct frnn_reserve **reserve);

// Frees a reserve, but not memory that the caller gave it. Null is ignored.
//
// # Safety
//
// `reserve` must be null or a live handle, which is one no more.
void frnn_reserve_free(struct frnn_reserve *reserve);

// Inference: `y`, `hn`, `cn` from `x`, without dropout.
//
// # Safety
//
// `plan` must be null or a live handle; `arguments` null or show to as many bytes as its `size` says; every tensor must be as long as it is
// said to be, and nothing else may use what is written, until the call is done: on the CPU when it returns, on a GPU when the stream
// has come to it.
frnn_status frnn_forward(const struct frnn_plan *plan, const struct frnn_forward_arguments *arguments);

// Training forward: the same with dropout, and fills the reserve, whatever was in it.
//
// # Safety
//
// As for `frnn_forward`; `reserve` must be null or a live handle.
frnn_status frnn_forward_training(const struct frnn_plan *plan,
                                  const struct frnn_forward_arguments *arguments,
                                  const struct frnn_reserve *reserve);

// Gradients of `x`, `h0`, `c0` from those of `y`, `hn`, `cn`. Uses the reserve up: a second time over the same forward it is
// `FRNN_STATUS_RESERVE_STAGE`.
//
// # Safety
//
// As for `frnn_forward_training`; inputs and weights are those of the forward call, unchanged.
frnn_status frnn_backward_data(const struct frnn_plan *plan,
                               const struct frnn_backward_arguments *arguments,
                               const struct frnn_reserve *reserve);

// Gradients of the weights, after `frnn_backward_data`.
//
// # Safety
//
// As for `frnn_backward_data`.
frnn_status frnn_backward_weights(const struct frnn_plan *plan,
                                  const struct frnn_backward_arguments *arguments,
                                  const struct frnn_reserve *reserve);

// Waits for the calls given to `stream` under this plan, and says whether their kernels have ended as they should. On the CPU there is
// nothing to wait for.
//
// # Safety
//
// `plan` must be null or a live handle.
frnn_status frnn_plan_check(const struct frnn_plan *plan, uint64_t stream);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FUSED_RNN_H */
