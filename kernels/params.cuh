// params.cuh - the parameter structs of the recurrent passes' kernels, mirrored field by field by src/backend/cuda/params.rs.
//
// T seq_len, B batch, H hidden_size, P output_size (proj_size or H), G gates, D directions. E is the element type, A the type
// of its accumulators (float; double for f64). A null pointer is a tensor that is absent. Strides count elements.
//
// A *step* counts in the order of processing, 0 .. T-1; its *time* t is the step, or T-1-step in a reverse direction.
#pragma once
#include "prims.cuh"

// ---- the cell ---------------------------------------------------------------------------------------------------------

// An activation function with its constants; kinds are numbered in activations.cuh.
struct Activation {
    u32 kind;
    u32 unused;
    double alpha, beta;
};

// The options of a cell. A clip of +infinity is none.
struct CellOptions {
    Activation gate, state, output;
    double gate_clip, cell_clip;
    u32 coupled_input_forget;  // LSTM: f = 1 - i
    u32 reset_before;          // GRU: n = g(... + R_n (r * h))
};

// What training keeps of a gate in the buffer `gates`.
enum SavedGates : u32 {
    SAVE_NOTHING = 0,          // inference
    SAVE_ACTIVATED = 1,        // gate values; enough where every derivative follows from them
    SAVE_PRE_ACTIVATIONS = 2,  // what goes into the clip and the activation
};

// ---- forward ----------------------------------------------------------------------------------------------------------

// What one direction of a layer reads and writes.
struct ForwardDirection {
    CellOptions cell;
    const void* weight_hh;  // E [G*H, P]; read by the persistent kernels, which hold it through all steps
    const void* bias_ih;    // E [G*H]
    const void* bias_hh;    // E [G*H]
    const void* peephole;   // E [3*H]: i, f, o
    const void* h0;         // E [B, P]
    const void* c0;         // E [B, H]
    void* gates;            // A [T, B, G*H]: holds W x; training leaves there what SavedGates says
    void* recurrent;        // A [B, G*H]: R h of this step, from the GEMM before (step family)
    void* projected;        // A [B, P]: W_hr u of this step, from the GEMM before (step family)
    void* h_prev;           // E [slots, rows, h_prev_stride]: the output each step starts from, resets applied; slot t % slots
    void* cell_state;       // A [T, B, H] in training, [B, H] in inference: c after the step
    void* q;                // A [T, B, H]: GRU, reset after, training: R_n h + b_hn
    void* reset_h;          // E [T, B, H] in training, [B, H] in inference: GRU, reset before: r * h
    void* u;                // E [T, B, H] in training, [B, H] in inference: LSTM with projection: o * output(c)
    void* y;                // E, first feature of this direction
    void* hn;               // E [B, P]
    void* cn;               // E [B, H]
    u32 reverse;
    u32 unused;
};

// One layer, both directions.
struct ForwardParams {
    ForwardDirection direction[2];
    const u32* lengths;  // [B], or null: all T
    const u8* resets;    // [T, B], or null: nowhere
    u64 y_time_stride, y_batch_stride;
    u32 seq_len, batch, hidden_size, output_size;
    u32 directions;
    u32 slots;          // of h_prev
    u32 rows;           // of a slot of h_prev: batch, or more where a kernel reads whole tiles
    u32 h_prev_stride;  // elements of a row of h_prev
    u32 save;           // SavedGates
    u32 hold;           // padded outputs repeat the last one (forward direction); otherwise they are zero
};

// Which part of a step a launch computes.
enum Phase : u32 {
    PHASE_WHOLE = 0,   // no second product in this step
    PHASE_FIRST = 1,   // up to the second product: LSTM with projection: u; GRU, reset before: r and reset_h
    PHASE_SECOND = 2,  // the rest
};

// One step of one layer (step family).
struct StepForwardParams {
    ForwardParams layer;
    u32 step;
    u32 phase;  // Phase
};

// ---- backward ---------------------------------------------------------------------------------------------------------

// Gradients of gates stand in `dgates`, E [T, B, slots*H]. RNN and LSTM: the gates in the order of the weights' rows. GRU, four
// slots: n, r, z, then what R_n and b_hn get (reset after: r * da_n), so that slots 1..3 pair with the rows of weight_hh.
struct BackwardDirection {
    CellOptions cell;
    const void* weight_hh;   // E [G*H, P]; read by the persistent kernels
    const void* peephole;    // E [3*H]
    const void* c0;          // E [B, H]
    const void* gates;       // A [T, B, G*H]: what forward saved
    const void* cell_state;  // A [T, B, H]
    const void* q;           // A [T, B, H]: GRU, reset after
    const void* h_prev;      // E [T, rows, h_prev_stride]
    void* dgates;            // E [T, B, slots*H]
    const void* dy;          // E, first feature of this direction
    const void* dhn;         // E [B, P]
    const void* dcn;         // E [B, H]
    void* dh;                // A [B, P]: gradient of the output that the step leaves behind, dy aside. A step replaces it by the
                             // part of the gradient of what it started from that needs no product; the GEMM after adds R^T da
    void* dc;                // A [B, H]: the same of the cell state, without GEMM
    void* dh_reset;          // A [B, P]: what resets sent to h0
    void* dc_reset;          // A [B, H]: what resets sent to c0
    void* dh_step;           // E [T, B, P]: LSTM with projection: gradient of h of every step
    const void* du;          // A [B, H]: LSTM with projection: W_hr^T dh of this step
    const void* dq;          // A [B, H]: GRU, reset before: R_n^T da_n of this step
    void* dh0;               // E [B, P]
    void* dc0;               // E [B, H]
    u32 reverse;
    u32 unused;
};

struct BackwardParams {
    BackwardDirection direction[2];
    const u32* lengths;
    const u8* resets;
    u64 dy_time_stride, dy_batch_stride;
    u32 seq_len, batch, hidden_size, output_size;
    u32 directions;
    u32 rows, h_prev_stride;
    u32 save;  // SavedGates, as in forward
    u32 hold;
    u32 unused;
};

struct StepBackwardParams {
    BackwardParams layer;
    u32 step;  // counts down from T-1
    u32 phase;
};

// ---- products ---------------------------------------------------------------------------------------------------------

// A matrix whose rows stand in groups: row r at (r / inner) * outer_stride + (r % inner) * inner_stride; columns adjacent.
// So a [T, B, features] tensor is a matrix of T*B rows in time-major order, whichever way it is laid out.
struct Rows {
    const void* data;
    u64 outer_stride, inner_stride;
    u32 inner;
    u32 unused;
};

struct GemmTerm {
    Rows a, b;
    u32 k;
    u32 unused;
};

constexpr int GEMM_TERMS = 4;

// c = sum of the terms' products; see gemm.cu for which way each operand lies.
struct GemmProblem {
    GemmTerm term[GEMM_TERMS];
    Rows c;  // data is written
    u32 terms;
    u32 m, n;
    u32 unused;
};

struct GemmParams {
    GemmProblem problem[2];  // one for each direction; grid z = problem * splits + split
    const u32* lengths;      // rows k of a and b at times past a sequence's length count as zero, whatever they hold (tn only)
    u32 splits;              // pieces of k (tn only); with more than one, c is A [splits, m, n], dense
    u32 accumulate;          // c += instead of c =
    u32 wide;                // c holds accumulators (A) instead of elements (E)
    u32 unused;
};

// ---- reductions -------------------------------------------------------------------------------------------------------

// out[i] (+)= sum over s of partial[s, i], in the order of s.
struct SumPartialsParams {
    const void* partial;  // A, rows of at least len numbers, `stride` apart
    void* out;            // E [len]
    u64 len, stride;
    u32 count;
    u32 accumulate;
};

// Column sums of gates' gradients over all steps and sequences, in pieces of rows: partial A [pieces, columns].
struct BiasGradientParams {
    Rows rows;  // E; zero past a sequence's length
    void* partial;
    u32 row_count, columns, pieces;
    u32 unused;
};

// Partial sums for the peepholes: da_i * c_prev, da_f * c_prev, da_o * c; partial A [pieces, 3*H].
struct PeepholeGradientParams {
    const void* dgates;      // E [T, B, 4*H]
    const void* cell_state;  // A [T, B, H]
    const void* c0;          // E [B, H]
    const u8* resets;
    void* partial;
    u32 seq_len, batch, hidden_size, pieces;
    u32 reverse;
    u32 unused;
};

// ---- dropout ----------------------------------------------------------------------------------------------------------

// out = x * mask, elementwise on [T, B, features]; mask from Philox4x32-10 as src/rnn/dropout.rs says.
struct DropoutParams {
    Rows x;    // E, T*B rows
    void* out;  // E [T*B, features], dense; may be x.data
    u64 seed;
    u64 threshold;  // keep where the 32 random bits are at or above
    double scale;
    u32 rows, batch, features, layer;
};

// ---- tests of the primitives ------------------------------------------------------------------------------------------

// primitives_test.cu says what is in them.
struct PrimitiveParams {
    const void* in[2];
    void* out[2];
    void* extra;
    u32* flags;
    u32 n, mode;
};

// Element at which row r begins.
DEVICE u64 row_offset(const Rows& rows, u32 r) {
    return (r / rows.inner) * rows.outer_stride + (r % rows.inner) * rows.inner_stride;
}

// ---- persistent kernels -----------------------------------------------------------------------------------------------

// All steps of a layer in one launch; see persistent_forward.cu and persistent_backward.cu.
struct PersistentForwardParams {
    ForwardParams layer;
    u32* status;  // 0 before the launch; not 0 after it where a wait gave up, and then the results are garbage
    u32 tiles;    // of 8 sequences, worked on one after another by a block (one block a group) or a group of blocks
    u32 polls;    // of one wait before it gives up
};

struct PersistentBackwardParams {
    BackwardParams layer;
    void* exchange[2];  // of each direction, E [T, batch, exchange_stride]: gradients of gates on their way between blocks
    u32* status;
    u32 tiles;
    u32 polls;
};

// ---- dense operations -------------------------------------------------------------------------------------------------

// values = f(values + bias), elementwise on [rows, columns].
struct BiasActivationParams {
    Activation f;
    void* values;      // E
    const void* bias;  // E [columns], or null
    void* inputs;      // E, gets values + bias; or null
    u64 len;           // rows * columns
    u64 columns;
};

// dx = dy * f'.
struct ActivationGradientParams {
    Activation f;
    const void* dy;
    const void* values;  // f's output, or its input where the derivative is a function of that
    void* dx;
    u64 len;
};

enum Combination : u32 { COMBINE_ADD = 0, COMBINE_MULTIPLY = 1 };

// out = a combined with b, elementwise.
struct CombineParams {
    const void* a;
    const void* b;
    void* out;
    u64 len;
    u32 combination;
    u32 unused;
};

// Columns of one matrix over those of another.
struct CopyColumnsParams {
    const void* from;  // E, first element that is copied
    void* to;          // E, the one that it goes to
    u64 rows, columns;
    u64 from_stride, to_stride;
};

struct FillParams {
    void* x;
    u64 len;
    double value;
};

struct AdamParams {
    void* parameters;
    const void* gradients;
    void* m;
    void* v;
    u64 len;
    double rate, beta_1, beta_2, epsilon;
    double decay;  // the part of themselves that parameters lose before the step
};

struct AdagradParams {
    void* parameters;
    const void* gradients;
    void* sums;  // of squared gradients
    u64 len;
    double rate, epsilon;
};

struct SgdParams {
    void* parameters;
    const void* gradients;
    void* velocity;  // or null
    u64 len;
    double rate, momentum;
    u32 nesterov;
    u32 unused;
};

struct RmsPropParams {
    void* parameters;
    const void* gradients;
    void* mean_square;
    void* mean;      // or null: not centred
    void* velocity;  // or null: no momentum
    u64 len;
    double rate, rho, momentum, epsilon;
};

enum LossKind : u32 {
    LOSS_SQUARED = 0,
    LOSS_ABSOLUTE = 1,
    LOSS_HUBER = 2,
    LOSS_BINARY_LOGITS = 3,
    LOSS_BINARY = 4,
    LOSS_CATEGORICAL_LOGITS = 5,  // from here on a row is one observation
    LOSS_CATEGORICAL = 6,
};

struct LossParams {
    const void* targets;      // E [rows, columns], or of a sparse loss the classes [rows]
    const void* predictions;  // E [rows, columns]
    void* gradient;           // E [rows, columns], or null
    const void* weights;      // E [rows], or null
    double* partial;          // [gridDim.x]: sums of the blocks
    u64 rows, columns;
    double delta;  // of Huber
    double scale;  // one over the observations
    u32 kind;      // LossKind
    u32 sparse;    // whether targets are classes
};

// Places in a record.
enum Record : u32 { RECORD_LOSS, RECORD_TOTAL, RECORD_BAD_LOSS, RECORD_BAD_GRADIENT, RECORD_BAD_VALUE, RECORD_BAD_INDEX };

struct FinishLossParams {
    const double* partial;  // [count]
    double* record;
    double scale;   // of their sum, which then is the loss
    double weight;  // of the loss in the total
    u32 count;
    u32 code;
};

// Sums of squares: of elements into partial [gridDim.x], and from there into sum.
struct SumOfSquaresParams {
    const void* x;    // E [len]
    double* partial;  // [count]
    double* sum;
    u64 len;
    u32 count;
    u32 unused;
};

struct ClipParams {
    void* x;
    const double* sum_of_squares;  // or null: by value
    u64 len;
    double most;
};

struct CheckFiniteParams {
    const void* x;
    double* record;
    u64 len;
    u32 code;
    u32 unused;
};

struct GatherParams {
    const void* table;   // E [rows, width]
    const u32* indices;  // [count]
    void* out;           // E [count, width]
    double* record;
    u64 count, width, rows;
    u32 code;
    u32 unused;
};

struct ScatterAddParams {
    void* dtable;        // E [rows, width]
    const u32* indices;  // [count]
    const void* dout;    // E [count, width]
    double* record;
    u64 count, width, rows;
    u32 by_row;      // a block for each row of the table, instead of one for each index
    u32 accumulate;  // += instead of =; without by_row always so
    u32 code;
    u32 unused;
};

// ---- tensor operations ------------------------------------------------------------------------------------------------

// y = alpha x + beta y; y is not read where beta is 0.
struct ScaleAddParams {
    const void* x;  // E [len]; may be y
    void* y;        // E [len]
    u64 len;
    double alpha, beta;
};

// to[i] = from[i] in the other type; floats on one side, elements of 16 bits on the other.
struct ConvertParams {
    const void* from;  // float [len] (narrow), E [len] (widen)
    void* to;          // E [len] (narrow), float [len] (widen)
    u64 len;
};

// to[...] = from[...], or +=. Strides count elements; those of `from` may be 0, all may be negative.
struct StridedCopyParams {
    const void* from;  // E, the element of all indices 0
    void* to;          // E, the same; no two indices lead to one element
    i64 from_stride[4], to_stride[4];
    u64 shape[4];
    u32 accumulate;
    u32 unused;
};

// y[o, i] = alpha sum over c of x[o, c, i], or +=.
struct SumAxisParams {
    const void* x;  // E [outer, count, inner]
    void* y;        // E [outer, inner]
    u64 outer, count, inner;
    double alpha;
    u32 lanes;  // threads of a sum: 1 or 32
    u32 accumulate;
};

// The largest along an axis, and its gradient.
struct MaxAxisParams {
    const void* x;     // E [outer, count, inner]
    const void* mask;  // E [outer, count], or null
    void* y;           // E [outer, inner]
    u32* position;     // [outer, inner]: c of the largest, or NO_ROW
    u64 outer, count, inner;
};

struct MaxAxisGradientParams {
    const void* dy;       // E [outer, inner]
    const u32* position;  // [outer, inner]
    void* dx;             // E [outer, count, inner]
    u64 outer, count, inner;
};

struct ScaleRowsParams {
    const void* factors;  // E [len / columns]
    const void* x;        // E [len]
    void* y;              // E [len]
    u64 len, columns;
    u32 inverse;  // by one over the factor, or zero where that is zero
    u32 unused;
};

struct SelectRowsParams {
    const void* mask;  // E [len / columns]
    const void* a;     // E [len]: where the mask is not 0
    const void* b;     // E [len]: elsewhere; or null: zeros
    void* out;         // E [len]
    u64 len, columns;
};

struct SoftmaxParams {
    const void* x;     // E [rows, columns]
    const void* keys;  // E [rows / rows_per_key, columns], or null: 0 where a column does not count
    void* y;           // E [rows, columns]
    u64 rows, columns;
    u64 rows_per_key;  // rows that share one of the mask's
    u64 queries;       // row r sees the columns up to r % queries; or 0: all
};

struct SoftmaxGradientParams {
    const void* y;   // E [rows, columns]
    const void* dy;  // E [rows, columns]
    void* dx;        // E [rows, columns]
    u64 rows, columns;
};

// c = alpha a b, or +=, for `count` products one after the other; which way operands lie is the kernel's.
struct BatchedGemmParams {
    const void* a;
    const void* b;
    void* c;  // E [count, m, n]
    u64 count;
    double alpha;
    u32 m, n, k;
    u32 accumulate;
};

struct LayerNormParams {
    const void* x;      // E [rows, columns]
    const void* gamma;  // E [columns], or null: ones
    const void* beta;   // E [columns], or null: zeros
    void* y;            // E [rows, columns]
    void* statistics;   // E [rows, 2]: mean and one over the deviation
    u64 rows, columns;
    double epsilon;
};

// Gradients of a normalisation by rows (with statistics) or by columns (with mean and variance).
struct NormGradientParams {
    const void* x;           // E [rows, columns]
    const void* statistics;  // E [rows, 2], or null
    const void* mean;        // E [columns], or null
    const void* variance;    // E [columns], or null
    const void* weights;     // E [rows], or null: ones; by columns only
    const void* gamma;       // E [columns], or null: ones
    const void* dy;          // E [rows, columns]
    void* dx;                // E [rows, columns]
    void* dgamma;            // E [columns], or null
    void* dbeta;             // E [columns], or null
    void* partial;           // A [pieces, 2 * columns + 1]: of a run of rows, sums of dy, of dy * normal x, and of the weights
    u64 rows, columns;
    double epsilon;
    u32 pieces;
    u32 accumulate;  // dgamma and dbeta += instead of =
};

struct ColumnMomentsParams {
    const void* x;        // E [rows, columns]
    const void* weights;  // E [rows], or null: ones
    void* mean;           // E [columns]
    void* variance;       // E [columns]
    u64 rows, columns;
};

struct BatchNormParams {
    const void* x;         // E [len]
    const void* mean;      // E [columns]
    const void* variance;  // E [columns]
    const void* gamma;     // E [columns], or null: ones
    const void* beta;      // E [columns], or null: zeros
    void* y;               // E [len]
    u64 len, columns;
    double epsilon;
};

struct MaskNotEqualParams {
    const void* x;  // E [rows, columns]
    void* mask;     // E [rows]
    u64 rows, columns;
    double value;  // one that E has
    u32 lanes;     // threads of a row: 1 or 32
    u32 unused;
};

// Which row a row of a list is; NO_ROW is none.
constexpr u32 NO_ROW = 0xffffffffu;

struct MaskOrderParams {
    const void* mask;  // E [batch, steps]
    u32* rows;         // [batch, steps]: of the valid steps in their order, then NO_ROW
    u32* inverse;      // [batch, steps]: where each valid step went
    u32* hold;         // [batch, steps]: where the last valid step up to each went (reverse: the first from each on)
    u32* lengths;      // [batch]: valid steps, at least 1
    void* any;         // E [batch]: whether a step is valid
    u64 batch, steps;
    u32 reverse;
    u32 unused;
};

struct PickRowsParams {
    const void* from;  // E [from_rows, width]
    const u32* rows;   // [count]
    void* out;         // E [count, width]
    u64 count, width, from_rows;
};

struct HoldGradientParams {
    const u32* hold;  // [batch, steps]
    const void* dy;   // E [batch, steps, width]
    void* dx;         // E [batch, steps, width]
    u64 batch, steps, width;
};

struct IndicesParams {
    const void* x;  // E [len]
    u32* out;       // [len]
    double* record;
    u64 len, rows;
    u32 code;
    u32 unused;
};
