// params_ops.cuh - the parameter structs of the kernels of a model's operations, mirrored field by field by
// src/backend/cuda/ops/params.rs.
//
// E is the element type, A the type of its accumulators (float; double for f64). A null pointer is a tensor that is absent.
#pragma once
#include "params.cuh"

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

// out = a * b, elementwise.
struct MultiplyParams {
    const void* a;
    const void* b;
    void* out;
    u64 len;
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

// Places in a status.
enum Status : u32 { STATUS_LOSS, STATUS_TOTAL, STATUS_BAD_LOSS, STATUS_BAD_GRADIENT, STATUS_BAD_VALUE, STATUS_BAD_INDEX };

struct FinishLossParams {
    const double* partial;  // [count]
    double* status;
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
    double* status;
    u64 len;
    u32 code;
    u32 unused;
};

// In lists of rows: none, which reads as zeros.
constexpr u32 NO_ROW = 0xffffffffu;

struct GatherParams {
    const void* table;   // E [rows, width]
    const u32* indices;  // [count]
    void* out;           // E [count, width]
    double* status;
    u64 count, width, rows;
    u32 code;
    u32 unused;
};

struct ScatterAddParams {
    void* dtable;        // E [rows, width]
    const u32* indices;  // [count]
    const void* dout;    // E [count, width]
    double* status;
    u64 count, width, rows;
    u32 by_row;      // a block for each row of the table, instead of one for each index
    u32 accumulate;  // += instead of =; without by_row always so
    u32 code;
    u32 unused;
};

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

struct HoldGradientParams {
    const u32* hold;  // [batch, steps]
    const void* dy;   // E [batch, steps, width]
    void* dx;         // E [batch, steps, width]
    u64 batch, steps, width;
};

struct IndicesParams {
    const void* x;  // E [len]
    u32* out;       // [len]
    double* status;
    u64 len, rows;
    u32 code;
    u32 unused;
};
