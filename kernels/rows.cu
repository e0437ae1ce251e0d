// rows.cu - sums and maxima along an axis; tables, masks and lists of rows.
//
// Math       Given with each kernel. Sums of all rows of a matrix (gradients of biases) come from reduce.cu.
// Reads, writes  See the kernels' structs in params_ops.cuh. mask_order leaves lists of rows.
// Launch     Elementwise kernels, and those where a thread has a whole sum or row: block 128, any grid along x; a thread takes elements
//            i, i + gridDim.x * 128, ... Where a warp has a row: the same, warps in place of threads, no shared memory.
//            scatter_add: block 128, 512 bytes of shared memory, a block for each row or index.
// Numerics   Elements are loaded into the accumulator type A (float; double for f64), sums are taken in it, and results are rounded
//            once when stored. Moves keep the bits. Every sum has an order that depends on sizes alone; there are no atomics (where
//            several threads write one code to a status, it is the same code). NaN stays NaN, and what a mask hides does not leak.
// Oracle     src/backend/reference/ops.rs.
#include "elements.cuh"

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

// ---- tables -----------------------------------------------------------------------------------------------------------

// Who comes second finds the same code there.
DEVICE void report_index(double* status, u32 code) {
    if (status != nullptr && status[STATUS_BAD_INDEX] == 0.0) status[STATUS_BAD_INDEX] = code;
}

// out[i, :] = table[indices[i], :]; zeros for NO_ROW, NaN where there is no such row.
template <class E> DEVICE void gather(const GatherParams& p) {
    const E* const table = static_cast<const E*>(p.table);
    E* const out = static_cast<E*>(p.out);
    for (u64 i = first_element(); i < p.count * p.width; i += element_stride()) {
        const u64 row = p.indices[i / p.width];
        if (row < p.rows) {
            out[i] = table[row * p.width + i % p.width];
        } else {
            store<E>(p.out, i, row == NO_ROW ? accumulator_t<E>(0) : not_a_number<accumulator_t<E>>());
            if (row != NO_ROW) report_index(p.status, p.code);
        }
    }
}

// dtable[indices[i], :] += dout[i, :], in the order of i; nothing for NO_ROW. Each block has one row of the table, its own or that of its index, and looks
// through the indices for it, 128 at a time in shared memory; of the blocks whose index is the same, the first does all.
template <class E> DEVICE void scatter_add(const ScatterAddParams& p) {
    using V = accumulator_t<E>;
    constexpr u32 THREADS = 128;
    SHARED(u32, chunk);
    const u64 row = p.by_row ? blockIdx.x : p.indices[blockIdx.x];
    const u64 first = p.by_row ? 0 : blockIdx.x;
    if (p.by_row) {
        // Block 0 looks for indices outside the table.
        if (blockIdx.x == 0) {
            for (u64 i = threadIdx.x; i < p.count; i += THREADS) {
                if (p.indices[i] >= p.rows && p.indices[i] != NO_ROW) report_index(p.status, p.code);
            }
        }
    } else {
        if (row >= p.rows) {
            if (threadIdx.x == 0 && row != NO_ROW) report_index(p.status, p.code);
            return;
        }
        u32 earlier = 0;
        for (u64 i = threadIdx.x; i < first; i += THREADS) earlier |= p.indices[i] == row;
        chunk[threadIdx.x] = earlier;
        __syncthreads();
        u32 any = 0;
        for (u32 k = 0; k < THREADS; ++k) any |= chunk[k];
        if (any) return;
        __syncthreads();
    }
    for (u64 tile = 0; tile < p.width; tile += THREADS) {
        const u64 column = tile + threadIdx.x;
        V sum = V(0);
        for (u64 begin = first; begin < p.count; begin += THREADS) {
            const u32 size = u32(min(p.count - begin, u64(THREADS)));
            if (threadIdx.x < size) chunk[threadIdx.x] = p.indices[begin + threadIdx.x];
            __syncthreads();
            for (u32 k = 0; k < size; ++k) {
                if (chunk[k] == row && column < p.width) sum += load<E>(p.dout, (begin + k) * p.width + column);
            }
            __syncthreads();
        }
        if (column < p.width) {
            const u64 at = row * p.width + column;
            store<E>(p.dtable, at, p.accumulate ? load<E>(p.dtable, at) + sum : sum);
        }
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

// Whole numbers below `rows`; for others 0, and a code in the status.
template <class E> DEVICE void indices(const IndicesParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const double x = load<E>(p.x, i);
        const bool inside = x >= 0.0 && x < double(p.rows) && double(u64(x)) == x;
        p.out[i] = inside ? u32(x) : 0;
        if (!inside) report_index(p.status, p.code);
    }
}
