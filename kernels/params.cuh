// params.cuh - the parameter structs of the recurrent passes' kernels, mirrored field by field by src/backend/cuda/kernel/params.rs.
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
    u32 exponential_forget;    // sLSTM: the forget gate is exp(a), else sigmoid(a)
};

// What training keeps of a gate in the buffer `gates`.
enum SavedGates : u32 {
    SAVE_NOTHING = 0,          // inference
    SAVE_ACTIVATED = 1,        // gate values; enough where every derivative follows from them
    SAVE_PRE_ACTIVATIONS = 2,  // what goes into the clip and the activation
    SAVE_PACKED = 3,           // gate values and q in 16 bits, see saved.cuh
};

// ---- forward ----------------------------------------------------------------------------------------------------------

// What one direction of a layer reads and writes.
struct ForwardDirection {
    CellOptions cell;
    const void* weight_hh;  // E [G*H, P] (heads: [G*H, H/heads]); read by the persistent kernels, which hold it through all steps
    const void* bias_ih;    // E [G*H]
    const void* bias_hh;    // E [G*H]
    const void* peephole;   // E [3*H]: i, f, o
    const void* h0;         // E [B, P]
    const void* c0;         // E [B, S*H], S the states beside h: one after the other
    const void* start_h;    // E [B, P]: what the first step starts from, in the place of h0, to which resets go; or null
    const void* start_c;    // A [B, S*H]: the same of c0
    const void* wx;         // A [T, B, G*H]: W x; stands where training leaves `gates`, unless they are packed
    void* gates;            // training: A [T, B, G*H], or packed; what SavedGates says
    void* recurrent;        // A [B, G*H]: R h of this step, from the GEMM before (step family)
    void* projected;        // A [B, P]: W_hr u of this step, from the GEMM before (step family)
    void* h_prev;           // E [slots, rows, h_prev_stride]: the output each step starts from, resets applied; slot t % slots
    void* cell_state;       // A [T, B, S*H] in training, [B, S*H] in inference: the states beside h after the step
    void* q;                // A [T, B, H]: GRU, reset after, training: R_n h + b_hn, unless it is packed with the gates
    void* reset_h;          // E [T, B, H] in training, [B, H] in inference: q of a second product; GRU, reset before: r * h
    void* u;                // E [T, B, H] in training, [B, H] in inference: LSTM with projection: o * output(c)
    void* y;                // E, first feature of this direction
    void* hn;               // E [B, P]
    void* cn;               // E [B, S*H]
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
    PHASE_FIRST = 1,   // up to the second product: LSTM with projection: u; GRU, reset before, and MGU: reset_h
    PHASE_SECOND = 2,  // the rest
};

// One step of one layer (step family).
struct StepForwardParams {
    ForwardParams layer;
    u32 step;
    u32 phase;  // Phase
};

// Steps in which tiles of a persistent kernel take no part.
struct EndedForwardParams {
    ForwardParams layer;
    u32 reverse;  // the directions whose `reverse` this is
    u32 tile;     // sequences of a tile of the persistent kernel
};

// ---- backward ---------------------------------------------------------------------------------------------------------

// Gradients of gates stand in `dgates`, E [T, B, slots*H], in the order of the weights' rows; those of a cell whose candidate's product
// is not as every gate's (SPLIT): the candidate, the other gates, and where the product is apart what it gets. GRU, four slots: n, r, z,
// then what R_n and b_hn get (reset after: r * da_n), so that slots 1..3 pair with the rows of weight_hh.
struct BackwardDirection {
    CellOptions cell;
    const void* weight_hh;   // E [G*H, P]; read by the persistent kernels
    const void* peephole;    // E [3*H]
    const void* c0;          // E [B, S*H]
    const void* start_c;     // A [B, S*H]: what the first step started from, in the place of c0; or null
    const void* gates;       // what forward saved
    const void* cell_state;  // A [T, B, S*H]
    const void* q;           // A [T, B, H]: GRU, reset after, unless it is packed with the gates
    const void* h_prev;      // E [T, rows, h_prev_stride]
    void* dgates;            // E [T, B, slots*H]
    const void* dy;          // E, first feature of this direction
    const void* dhn;         // E [B, P]
    const void* dcn;         // E [B, S*H]
    void* dh;                // A [B, P]: gradient of the output that the step leaves behind, dy aside. A step replaces it by the
                             // part of the gradient of what it started from that needs no product; the GEMM after adds R^T da
    void* dc;                // A [B, S*H]: the same of the states beside h, without GEMM
    void* dh_reset;          // A [B, P]: what resets sent to h0
    void* dc_reset;          // A [B, S*H]: what resets sent to c0
    void* dh_step;           // E [T, B, P]: LSTM with projection: gradient of h of every step
    const void* du;          // A [B, H]: LSTM with projection: W_hr^T dh of this step
    const void* dq;          // A [B, H]: R^T da of the candidate of this step, where it has a second product
    void* dh0;               // E [B, P]
    void* dc0;               // E [B, S*H]
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
    u32 other_states;  // S
};

struct StepBackwardParams {
    BackwardParams layer;
    u32 step;  // counts down from T-1
    u32 phase;
};

struct EndedBackwardParams {
    BackwardParams layer;
    u32 slots;  // of `dgates`
    u32 tile;   // sequences of a tile of the persistent kernel
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

// A product with recurrent weights in heads, see heads.cu.
struct HeadProduct {
    const void* vector;   // E [B, ..], rows `vector_stride` apart
    const void* weights;  // E [gates, heads, N, N]
    void* out;            // A [B, ..], rows `out_stride` apart
};

struct HeadProductParams {
    HeadProduct direction[2];
    u32 batch, hidden_size, head_size, gates;
    u32 vector_stride, out_stride;
    u32 accumulate;
    u32 unused;
};

struct HeadWeightsParams {
    Rows gradients, vector;  // E, of all times and sequences
    void* partial;           // A [pieces, gates * H * N]
    const u32* lengths;      // or null
    u32 rows, batch, hidden_size, head_size, gates, pieces;
};

// Precomputed gates and their gradients, see gates.cu.
struct GatesParams {
    Rows x;          // E [T*B, D*G*H]; dx is written
    void* gates[2];  // of each direction: W x, A [T, B, G*H], or dgates E [T, B, slots*H]
    u32 row_count, columns, hidden_size, slots;
    u32 split;       // whether the candidate's gradients are the first slot
    u32 unused;
};

// ---- reductions -------------------------------------------------------------------------------------------------------

// out[i] (+)= alpha times the sum over s of partial[s, i], in the order of s.
struct SumPartialsParams {
    const void* partial;  // A, rows of at least len numbers, `stride` apart
    void* out;            // E [len]
    u64 len, stride;
    u32 count;
    u32 accumulate;
    double alpha;
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
    const void* start_c;     // A [B, H]: what the first step started from, in the place of c0; or null
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

// ---- segments ---------------------------------------------------------------------------------------------------------

// to = from, or +=; see segments.cu.
struct CopyRowsParams {
    Rows from;  // E; null: zeros
    Rows to;    // E, written
    u32 row_count, columns;
    u32 accumulate;
    u32 unused;
};

// Steps of every sequence among `steps` steps from `first` on.
struct SegmentLengthsParams {
    const u32* lengths;  // [batch]
    u32* out;            // [batch]
    u32 batch, first, steps;
    u32 unused;
};

// Steps past the lengths, whose outputs repeat the state.
struct HeldRowsParams {
    const u32* lengths;  // [batch], at most `steps`
    void* state;         // E [batch, columns]; of add_held A
    void* rows;          // E [steps, batch, columns]
    u32 steps, batch, columns;
    u32 unused;
};

// States, or their gradients, at resets of a step.
struct RestartParams {
    const u8* resets;    // [steps, batch]
    const u32* lengths;  // [batch], or null: all steps
    void* from;          // E [batch, columns], or null: zeros; of gradients A
    void* to;            // [batch, columns], E; A where `wide`, and of gradients
    u32 step, batch, columns;
    u32 wide;
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
    const void* weight_ih[2];  // of each direction, E [G*H, 1]: where x is given
    const void* x;             // E [T, B]: an input of one number, whose W x the loop computes itself; or null: W x is in wx
    u64 x_time_stride, x_batch_stride;
    u32* fault;  // 0 before the launch; not 0 after it where a wait gave up, and then the results are garbage
    u32 tiles;    // worked on one after another by a block (one block a group) or a group of blocks
    u32 patience; // of one wait before it gives up, see Spin
};

struct PersistentBackwardParams {
    BackwardParams layer;
    void* exchange[2];  // of each direction, E [T, batch, exchange_stride]: gradients of gates on their way between blocks
    u32* fault;
    u32 tiles;
    u32 patience;
};
