// tensor.cu - what layers need besides products and losses: moving, summing, comparing and normalising elements.
//
// Math       Given with each kernel; the operations are those of src/backend/tensor/mod.rs. batched_gemm stands in gemm.cu.
// Reads, writes  See the kernels' structs in params.cuh. layer_norm leaves mean and one over the deviation of each row for backward,
//            rounded to E; mask_order leaves lists of rows.
// Launch     Elementwise kernels, and those where a thread has a whole sum or row: block 128, any grid along x; a thread takes elements
//            i, i + gridDim.x * 128, ... Where a warp has a row: the same, warps in place of threads, no shared memory.
//            norm_sums: grid (ceil(columns / 32), pieces), block 256, 768 * sizeof(A) bytes of shared memory; column_moments: grid
//            (ceil(columns / 8)), block 256, 256 * sizeof(A) bytes.
// Numerics   Elements are loaded into the accumulator type A (float; double for f64), sums are taken in it, and results are rounded
//            once when stored. Moves keep the bits. Every sum has an order that depends on sizes alone; there are no atomics (where
//            several threads write one code to a record, it is the same code). NaN stays NaN, and what a mask hides does not leak.
// Oracle     src/backend/tensor/host.rs; tests/tensor.rs.
#include "params.cuh"

DEVICE u64 first_element() { return u64(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE u64 element_stride() { return u64(gridDim.x) * blockDim.x; }
// The same for work that a warp shares: all its lanes have the same number.
DEVICE u64 first_row() { return first_element() / 32; }
DEVICE u64 row_stride() { return element_stride() / 32; }

template <class V> DEVICE V not_a_number() { return V(__uint_as_float(0x7fc00000u)); }

// ---- moves ------------------------------------------------------------------------------------------------------------

template <class E> DEVICE void scale_add(const ScaleAddParams& p) {
    using V = accumulator_t<E>;
    const V alpha = V(p.alpha), beta = V(p.beta);
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V x = alpha * load<E>(p.x, i);
        store<E>(p.y, i, p.beta == 0.0 ? x : x + beta * load<E>(p.y, i));
    }
}

// Between float tensors and their copies in 16 bits, for mixed precision: rounded to nearest, ties to even; beyond the range of E infinite.
template <class E> DEVICE void narrow(const ConvertParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) store<E>(p.to, i, load<f32>(p.from, i));
}

template <class E> DEVICE void widen(const ConvertParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) store<f32>(p.to, i, load<E>(p.from, i));
}

template <class E> DEVICE void strided_copy(const StridedCopyParams& p) {
    const u64 len = p.shape[0] * p.shape[1] * p.shape[2] * p.shape[3];
    for (u64 i = first_element(); i < len; i += element_stride()) {
        i64 from = 0, to = 0;
        u64 rest = i;
#pragma unroll
        for (int axis = 3; axis >= 0; --axis) {
            const i64 index = i64(rest % p.shape[axis]);
            rest /= p.shape[axis];
            from += index * p.from_stride[axis];
            to += index * p.to_stride[axis];
        }
        const E* const source = static_cast<const E*>(p.from) + from;
        E* const target = static_cast<E*>(p.to) + to;
        *target = p.accumulate ? round_to<E>(to_float(*target) + to_float(*source)) : *source;
    }
}

template <class E> DEVICE void scale_rows(const ScaleRowsParams& p) {
    using V = accumulator_t<E>;
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V factor = load<E>(p.factors, i / p.columns), x = load<E>(p.x, i);
        store<E>(p.y, i, !p.inverse ? x * factor : factor == V(0) ? V(0) : x / factor);
    }
}

template <class E> DEVICE void select_rows(const SelectRowsParams& p) {
    using V = accumulator_t<E>;
    const E* const a = static_cast<const E*>(p.a);
    const E* const b = static_cast<const E*>(p.b);
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const bool first = load<E>(p.mask, i / p.columns) != V(0);
        static_cast<E*>(p.out)[i] = first ? a[i] : b == nullptr ? zero<E>() : b[i];
    }
}

// ---- along an axis ----------------------------------------------------------------------------------------------------

// A thread, or the lanes of a warp, for each sum.
template <class E> DEVICE void sum_axis(const SumAxisParams& p) {
    using V = accumulator_t<E>;
    const bool warps = p.lanes == 32;
    const u64 first = warps ? first_row() : first_element(), stride = warps ? row_stride() : element_stride();
    const u32 lane = warps ? lane_id() : 0;
    for (u64 i = first; i < p.outer * p.inner; i += stride) {
        const u64 begin = i / p.inner * p.count * p.inner + i % p.inner;
        V sum = V(0);
        for (u64 c = lane; c < p.count; c += p.lanes) sum += load<E>(p.x, begin + c * p.inner);
        if (warps) sum = warp_sum(sum);
        if (lane != 0) continue;
        const V scaled = V(p.alpha) * sum;
        store<E>(p.y, i, p.accumulate ? load<E>(p.y, i) + scaled : scaled);
    }
}

// The first of equals wins, and the first NaN over everything.
template <class E> DEVICE void max_axis(const MaxAxisParams& p) {
    using V = accumulator_t<E>;
    for (u64 i = first_element(); i < p.outer * p.inner; i += element_stride()) {
        const u64 row = i / p.inner * p.count;
        V largest = V(0);
        u32 position = NO_ROW;
        for (u64 c = 0; c < p.count; ++c) {
            if (p.mask != nullptr && load<E>(p.mask, row + c) == V(0)) continue;
            const V value = load<E>(p.x, (row + c) * p.inner + i % p.inner);
            const bool is_nan = value != value && largest == largest;
            if (position == NO_ROW || value > largest || is_nan) {
                largest = value;
                position = u32(c);
            }
        }
        store<E>(p.y, i, largest);
        p.position[i] = position;
    }
}

template <class E> DEVICE void max_axis_gradient(const MaxAxisGradientParams& p) {
    for (u64 i = first_element(); i < p.outer * p.count * p.inner; i += element_stride()) {
        const u64 c = i / p.inner % p.count, at = i / p.inner / p.count * p.inner + i % p.inner;
        static_cast<E*>(p.dx)[i] = p.position[at] == c ? static_cast<const E*>(p.dy)[at] : zero<E>();
    }
}

// ---- softmax ----------------------------------------------------------------------------------------------------------

// y = exp(x - max) / sum exp(x - max) over the valid columns of a row, zero in the others. A warp has a row.
template <class E> DEVICE void softmax(const SoftmaxParams& p) {
    using V = accumulator_t<E>;
    for (u64 row = first_row(); row < p.rows; row += row_stride()) {
        const u64 begin = row * p.columns, key = p.keys == nullptr ? 0 : row / p.rows_per_key * p.columns;
        const u64 seen = p.queries == 0 ? p.columns : min(p.columns, row % p.queries + 1);
        auto valid = [&](u64 c) { return c < seen && (p.keys == nullptr || load<E>(p.keys, key + c) != V(0)); };
        V largest = -V(__uint_as_float(0x7f800000u)), total = V(0);
        for (u64 c = lane_id(); c < seen; c += 32) {
            if (valid(c)) largest = max(largest, load<E>(p.x, begin + c));
        }
        largest = warp_max(largest);
        for (u64 c = lane_id(); c < seen; c += 32) {
            if (valid(c)) total += exp_accurate(load<E>(p.x, begin + c) - largest);
        }
        total = warp_sum(total);
        for (u64 c = lane_id(); c < p.columns; c += 32) {
            store<E>(p.y, begin + c, valid(c) ? exp_accurate(load<E>(p.x, begin + c) - largest) / total : V(0));
        }
    }
}

// dx = y (dy - sum y dy). A warp has a row.
template <class E> DEVICE void softmax_gradient(const SoftmaxGradientParams& p) {
    using V = accumulator_t<E>;
    for (u64 row = first_row(); row < p.rows; row += row_stride()) {
        const u64 begin = row * p.columns + lane_id(), end = (row + 1) * p.columns;
        V sum = V(0);
        for (u64 i = begin; i < end; i += 32) sum += load<E>(p.y, i) * load<E>(p.dy, i);
        sum = warp_sum(sum);
        for (u64 i = begin; i < end; i += 32) store<E>(p.dx, i, load<E>(p.y, i) * (load<E>(p.dy, i) - sum));
    }
}

// ---- normalisation by rows --------------------------------------------------------------------------------------------

template <class E> DEVICE accumulator_t<E> load_or(const void* p, u64 i, accumulator_t<E> otherwise) {
    return p == nullptr ? otherwise : load<E>(p, i);
}

// y = (x - mean) / sqrt(variance + epsilon) gamma + beta. A warp has a row.
template <class E> DEVICE void layer_norm(const LayerNormParams& p) {
    using V = accumulator_t<E>;
    const V count = V(p.columns);
    for (u64 row = first_row(); row < p.rows; row += row_stride()) {
        const u64 begin = row * p.columns;
        V sum = V(0), squares = V(0);
        for (u64 c = lane_id(); c < p.columns; c += 32) sum += load<E>(p.x, begin + c);
        const V mean = warp_sum(sum) / count;
        for (u64 c = lane_id(); c < p.columns; c += 32) {
            const V d = load<E>(p.x, begin + c) - mean;
            squares += d * d;
        }
        const V inverse = V(1) / square_root(warp_sum(squares) / count + V(p.epsilon));
        if (lane_id() == 0) {
            store<E>(p.statistics, 2 * row, mean);
            store<E>(p.statistics, 2 * row + 1, inverse);
        }
        for (u64 c = lane_id(); c < p.columns; c += 32) {
            const V normal = (load<E>(p.x, begin + c) - mean) * inverse;
            store<E>(p.y, begin + c, normal * load_or<E>(p.gamma, c, V(1)) + load_or<E>(p.beta, c, V(0)));
        }
    }
}

// With n the normal x and g = dy gamma: dx = (g - mean(g) - n mean(g n)) / deviation. A warp has a row.
template <class E> DEVICE void layer_norm_gradient(const NormGradientParams& p) {
    using V = accumulator_t<E>;
    const V count = V(p.columns);
    for (u64 row = first_row(); row < p.rows; row += row_stride()) {
        const u64 begin = row * p.columns;
        const V mean = load<E>(p.statistics, 2 * row), inverse = load<E>(p.statistics, 2 * row + 1);
        auto slope = [&](u64 c) { return load<E>(p.dy, begin + c) * load_or<E>(p.gamma, c, V(1)); };
        auto normal = [&](u64 c) { return (load<E>(p.x, begin + c) - mean) * inverse; };
        V first = V(0), second = V(0);
        for (u64 c = lane_id(); c < p.columns; c += 32) {
            const V g = slope(c);
            first += g;
            second += g * normal(c);
        }
        first = warp_sum(first) / count;
        second = warp_sum(second) / count;
        for (u64 c = lane_id(); c < p.columns; c += 32) {
            store<E>(p.dx, begin + c, (slope(c) - first - normal(c) * second) * inverse);
        }
    }
}

// ---- normalisation by columns -----------------------------------------------------------------------------------------

// Mean and variance of the columns, each row counting as its weight says; zeros where the weights are none. A block has 8 columns; thread
// t adds rows t / 8, t / 8 + 32, ... of column t % 8, and the 32 sums of a column are added in the order of the threads.
template <class E> DEVICE void column_moments(const ColumnMomentsParams& p) {
    using V = accumulator_t<E>;
    constexpr u32 COLUMNS = 8, GROUPS = 32;
    SHARED(V, sums);
    const u64 column = u64(blockIdx.x) * COLUMNS + threadIdx.x % COLUMNS;
    const u32 group = threadIdx.x / COLUMNS;
    const bool inside = column < p.columns;
    // The sum of the groups' values, in every thread.
    auto over_groups = [&](V value) {
        __syncthreads();
        sums[threadIdx.x] = value;
        __syncthreads();
        V total = V(0);
        for (u32 g = 0; g < GROUPS; ++g) total += sums[g * COLUMNS + threadIdx.x % COLUMNS];
        return total;
    };
    V total = V(0), sum = V(0), squares = V(0);
    for (u64 r = group; r < p.rows; r += GROUPS) {
        const V weight = load_or<E>(p.weights, r, V(1));
        total += weight;
        if (inside) sum += weight * load<E>(p.x, r * p.columns + column);
    }
    total = over_groups(total);
    sum = over_groups(sum);
    const V mean = total == V(0) ? V(0) : sum / total;
    for (u64 r = group; r < p.rows && inside; r += GROUPS) {
        const V d = load<E>(p.x, r * p.columns + column) - mean;
        squares += load_or<E>(p.weights, r, V(1)) * d * d;
    }
    squares = over_groups(squares);
    if (group == 0 && inside) {
        store<E>(p.mean, column, mean);
        store<E>(p.variance, column, total == V(0) ? V(0) : squares / total);
    }
}

template <class E> DEVICE accumulator_t<E> inverse_deviation(const void* variance, u64 column, double epsilon) {
    using V = accumulator_t<E>;
    return V(1) / square_root(load<E>(variance, column) + V(epsilon));
}

template <class E> DEVICE void batch_norm(const BatchNormParams& p) {
    using V = accumulator_t<E>;
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const u64 c = i % p.columns;
        const V normal = (load<E>(p.x, i) - load<E>(p.mean, c)) * inverse_deviation<E>(p.variance, c, p.epsilon);
        store<E>(p.y, i, normal * load_or<E>(p.gamma, c, V(1)) + load_or<E>(p.beta, c, V(0)));
    }
}

// For both normalisations, with n the normal x: sums of dy and of dy n over a run of rows, in the order of column_sums in reduce.cu; and
// of the rows' weights.
template <class E> DEVICE void norm_sums(const NormGradientParams& p) {
    using V = accumulator_t<E>;
    constexpr u32 THREADS = 256, WARPS = THREADS / 32;
    SHARED(V, sums);
    V* const products = sums + THREADS;
    V* const weights = products + THREADS;
    const u64 column = u64(blockIdx.x) * 32 + lane_id();
    const bool inside = column < p.columns;
    V mean = V(0), inverse = V(0), sum = V(0), product = V(0), weight = V(0);
    if (inside && p.statistics == nullptr) {
        mean = load<E>(p.mean, column);
        inverse = inverse_deviation<E>(p.variance, column, p.epsilon);
    }
    const u64 end = p.rows * (blockIdx.y + 1) / p.pieces;
    for (u64 r = p.rows * blockIdx.y / p.pieces + warp_id(); r < end; r += WARPS) {
        if (p.statistics != nullptr) {
            mean = load<E>(p.statistics, 2 * r);
            inverse = load<E>(p.statistics, 2 * r + 1);
        }
        if (p.weights != nullptr) weight += load<E>(p.weights, r);
        if (!inside) continue;
        const V dy = load<E>(p.dy, r * p.columns + column);
        sum += dy;
        product += dy * ((load<E>(p.x, r * p.columns + column) - mean) * inverse);
    }
    sums[threadIdx.x] = sum;
    products[threadIdx.x] = product;
    weights[threadIdx.x] = weight;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    for (u32 w = 1; w < WARPS; ++w) {
        sum += sums[w * 32 + threadIdx.x];
        product += products[w * 32 + threadIdx.x];
        weight += weights[w * 32 + threadIdx.x];
    }
    V* const partial = static_cast<V*>(p.partial) + blockIdx.y * (2 * p.columns + 1);
    if (inside) {
        partial[column] = sum;
        partial[p.columns + column] = product;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) partial[2 * p.columns] = weight;
}

// Adds the runs in their order; the totals take the place of the first run's sums. Those of dy are dbeta, those of dy n dgamma.
template <class E> DEVICE void norm_totals(const NormGradientParams& p) {
    using V = accumulator_t<E>;
    const u64 len = 2 * p.columns + 1;
    V* const partial = static_cast<V*>(p.partial);
    for (u64 i = first_element(); i < len; i += element_stride()) {
        V total = partial[i];
        for (u32 piece = 1; piece < p.pieces; ++piece) total += partial[piece * len + i];
        partial[i] = total;
        if (i >= 2 * p.columns) continue;
        void* const out = i < p.columns ? p.dbeta : p.dgamma;
        const u64 c = i % p.columns;
        if (out != nullptr) store<E>(out, c, p.accumulate ? load<E>(out, c) + total : total);
    }
}

// dx = gamma / deviation (dy - w / sum(w) (sum(dy) + n sum(dy n))), from the totals of norm_totals.
template <class E> DEVICE void batch_norm_gradient(const NormGradientParams& p) {
    using V = accumulator_t<E>;
    const V* const totals = static_cast<const V*>(p.partial);
    const V all = p.weights == nullptr ? V(p.rows) : totals[2 * p.columns];
    for (u64 i = first_element(); i < p.rows * p.columns; i += element_stride()) {
        const u64 c = i % p.columns;
        const V weight = load_or<E>(p.weights, i / p.columns, V(1)), share = all == V(0) ? V(0) : weight / all;
        const V inverse = inverse_deviation<E>(p.variance, c, p.epsilon);
        const V normal = (load<E>(p.x, i) - load<E>(p.mean, c)) * inverse;
        const V through = share * (totals[c] + normal * totals[p.columns + c]);
        store<E>(p.dx, i, load_or<E>(p.gamma, c, V(1)) * inverse * (load<E>(p.dy, i) - through));
    }
}

// ---- masks and lists of rows ------------------------------------------------------------------------------------------

// A thread, or the lanes of a warp, for each row. NaN differs from every value.
template <class E> DEVICE void mask_not_equal(const MaskNotEqualParams& p) {
    using V = accumulator_t<E>;
    const bool warps = p.lanes == 32;
    const u64 first = warps ? first_row() : first_element(), stride = warps ? row_stride() : element_stride();
    const u32 lane = warps ? lane_id() : 0;
    const V value = V(p.value);
    for (u64 row = first; row < p.rows; row += stride) {
        bool differs = false;
        for (u64 c = lane; c < p.columns; c += p.lanes) differs |= load<E>(p.x, row * p.columns + c) != value;
        if (warps) differs = __any_sync(FULL_WARP, differs);
        if (lane == 0) store<E>(p.mask, row, differs ? V(1) : V(0));
    }
}

// A warp has a sample, and looks at 32 steps at a time: a step's place is the number of valid ones before it.
template <class E> DEVICE void mask_order(const MaskOrderParams& p) {
    using V = accumulator_t<E>;
    const u32 before_lane = (1u << lane_id()) - 1;
    for (u64 b = first_row(); b < p.batch; b += row_stride()) {
        const u64 begin = b * p.steps;
        auto votes = [&](u64 t) {
            const bool valid = t < p.steps && load<E>(p.mask, begin + t) != V(0);
            return __ballot_sync(FULL_WARP, valid);
        };
        u64 count = 0;
        for (u64 t = 0; t < p.steps; t += 32) count += __popc(votes(t + lane_id()));
        u64 before = 0;
        for (u64 first = 0; first < p.steps; first += 32) {
            const u64 t = first + lane_id();
            const u32 valid = votes(t);
            const u64 place = before + __popc(valid & before_lane);
            const bool mine = valid >> lane_id() & 1;
            before += __popc(valid);
            if (t >= p.steps) continue;
            if (mine) p.rows[begin + place] = u32(begin + t);
            p.inverse[begin + t] = mine ? u32(begin + place) : NO_ROW;
            // Going forward the last place up to here, in reverse the first from here on: that of this step if it is valid.
            const bool holds = mine || (p.reverse ? place < count : place > 0);
            const u64 held = mine || p.reverse ? place : place - 1;
            p.hold[begin + t] = holds ? u32(begin + held) : NO_ROW;
        }
        for (u64 t = count + lane_id(); t < p.steps; t += 32) p.rows[begin + t] = NO_ROW;
        if (lane_id() == 0) {
            p.lengths[b] = count == 0 ? 1 : u32(count);
            store<E>(p.any, b, count == 0 ? V(0) : V(1));
        }
    }
}

// out[i, :] = from[rows[i], :]; zeros for NO_ROW, NaN where there is no such row.
template <class E> DEVICE void pick_rows(const PickRowsParams& p) {
    const E* const from = static_cast<const E*>(p.from);
    E* const out = static_cast<E*>(p.out);
    for (u64 i = first_element(); i < p.count * p.width; i += element_stride()) {
        const u32 row = p.rows[i / p.width];
        if (row < p.from_rows) {
            out[i] = from[row * p.width + i % p.width];
        } else {
            store<E>(p.out, i, row == NO_ROW ? accumulator_t<E>(0) : not_a_number<accumulator_t<E>>());
        }
    }
}

// dx[b, q, :] = sum of dy[b, t, :] over the steps t that hold q. A thread has a column of a sample. Steps that hold the same follow one
// another, so that a run is summed in a register and rounded once.
template <class E> DEVICE void hold_gradient(const HoldGradientParams& p) {
    using V = accumulator_t<E>;
    for (u64 i = first_element(); i < p.batch * p.width; i += element_stride()) {
        const u64 row = i / p.width * p.steps, column = i % p.width;
        for (u64 t = 0; t < p.steps; ++t) store<E>(p.dx, (row + t) * p.width + column, V(0));
        V sum = V(0);
        for (u64 t = 0; t < p.steps; ++t) {
            const u64 held = p.hold[row + t];
            const bool inside = held >= row && held < row + p.steps;
            if (inside) sum += load<E>(p.dy, (row + t) * p.width + column);
            const bool ends = t + 1 == p.steps || p.hold[row + t + 1] != held;
            if (inside && ends) {
                const u64 at = held * p.width + column;
                store<E>(p.dx, at, load<E>(p.dx, at) + sum);
                sum = V(0);
            }
        }
    }
}

// Whole numbers below `rows`; for others 0, and a code in the record.
template <class E> DEVICE void indices(const IndicesParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const double x = load<E>(p.x, i);
        const bool inside = x >= 0.0 && x < double(p.rows) && double(u64(x)) == x;
        p.out[i] = inside ? u32(x) : 0;
        // Who comes second finds the same code there.
        if (!inside && p.record[RECORD_BAD_INDEX] == 0.0) p.record[RECORD_BAD_INDEX] = p.code;
    }
}
