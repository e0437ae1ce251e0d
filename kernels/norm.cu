// norm.cu - softmax, and normalisation by rows and by columns.
//
// Math       Given with each kernel.
// Reads, writes  See the kernels' structs in params_ops.cuh. layer_norm leaves mean and one over the deviation of each row for backward,
//            rounded to E.
// Launch     Elementwise kernels: block 128, any grid along x; a thread takes elements i, i + gridDim.x * 128, ... Where a warp has a
//            row: the same, warps in place of threads, no shared memory.
//            norm_sums: grid (ceil(columns / 32), pieces), block 256, 768 * sizeof(A) bytes of shared memory; column_moments: grid
//            (ceil(columns / 8)), block 256, 256 * sizeof(A) bytes.
// Numerics   Elements are loaded into the accumulator type A (float; double for f64), sums are taken in it, and results are rounded
//            once when stored. Every sum has an order that depends on sizes alone; there are no atomics. NaN stays NaN, and what a
//            mask hides does not leak.
// Oracle     src/backend/reference/ops.rs.
#include "elements.cuh"

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
