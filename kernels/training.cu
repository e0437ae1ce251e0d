// training.cu - losses, optimizers, and the norms and checks of gradients.
//
// Math       Given with each kernel.
// Reads, writes  See the kernels' structs in params_ops.cuh. Nothing is saved for backward but what they name.
// Launch     Optimizers, clip, check_finite: block 128, any grid along x; a thread takes elements i, i + gridDim.x * 128, ...
//            Reductions (losses, sum_of_squares): block 256, 64 bytes of shared memory; each block leaves one sum in
//            `partial`, and a second kernel of one block adds these.
// Numerics   Elements are loaded into the accumulator type (float; double for f64) and rounded once when stored. Losses,
//            norms and everything in a status are sums of doubles. All sums have a fixed order that depends on sizes and
//            geometry alone, so the same call gives the same bits every time. No atomics: where several blocks write one
//            code to a status, it is the same code. NaN stays NaN.
// Oracle     src/backend/reference/ops.rs and src/loss.rs.
#include "activations.cuh"
#include "elements.cuh"

// NaN is neither.
template <class V> DEVICE bool is_finite(V x) { return x - x == V(0); }

// ---- optimizers -------------------------------------------------------------------------------------------------------

// m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2;  w = (1 - decay) w - rate m / (sqrt(v) + epsilon)
template <class E> DEVICE void adam(const AdamParams& p) {
    using V = accumulator_t<E>;
    const V keep_m = V(p.beta_1), keep_v = V(p.beta_2), take_m = V(1.0 - p.beta_1), take_v = V(1.0 - p.beta_2);
    const V decayed = V(1.0 - p.decay);
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V g = load<E>(p.gradients, i);
        const V m = keep_m * load<E>(p.m, i) + take_m * g;
        const V v = keep_v * load<E>(p.v, i) + take_v * g * g;
        store<E>(p.m, i, m);
        store<E>(p.v, i, v);
        const V step = V(p.rate) * m / (square_root(v) + V(p.epsilon));
        store<E>(p.parameters, i, decayed * load<E>(p.parameters, i) - step);
    }
}

// v = momentum v - rate g;  w += v, or looking ahead w += momentum v - rate g
template <class E> DEVICE void sgd(const SgdParams& p) {
    using V = accumulator_t<E>;
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V change = V(p.rate) * load<E>(p.gradients, i);
        V step = -change;
        if (p.velocity != nullptr) {
            const V v = V(p.momentum) * load<E>(p.velocity, i) - change;
            store<E>(p.velocity, i, v);
            step = p.nesterov ? V(p.momentum) * v - change : v;
        }
        store<E>(p.parameters, i, load<E>(p.parameters, i) + step);
    }
}

// s = rho s + (1 - rho) g^2;  a = rho a + (1 - rho) g;  v = momentum v + rate g / sqrt(s - a^2 + epsilon);  w -= v
template <class E> DEVICE void rmsprop(const RmsPropParams& p) {
    using V = accumulator_t<E>;
    const V keep = V(p.rho), take = V(1.0 - p.rho);
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V g = load<E>(p.gradients, i);
        V variance = keep * load<E>(p.mean_square, i) + take * g * g;
        store<E>(p.mean_square, i, variance);
        if (p.mean != nullptr) {
            const V mean = keep * load<E>(p.mean, i) + take * g;
            store<E>(p.mean, i, mean);
            variance -= mean * mean;
        }
        V change = V(p.rate) * g / square_root(variance + V(p.epsilon));
        if (p.velocity != nullptr) {
            change += V(p.momentum) * load<E>(p.velocity, i);
            store<E>(p.velocity, i, change);
        }
        store<E>(p.parameters, i, load<E>(p.parameters, i) - change);
    }
}

// s += g^2;  w -= rate g / sqrt(s + epsilon)
template <class E> DEVICE void adagrad(const AdagradParams& p) {
    using V = accumulator_t<E>;
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V g = load<E>(p.gradients, i);
        const V sum = load<E>(p.sums, i) + g * g;
        store<E>(p.sums, i, sum);
        store<E>(p.parameters, i, load<E>(p.parameters, i) - V(p.rate) * g / square_root(sum + V(p.epsilon)));
    }
}

// ---- sums -------------------------------------------------------------------------------------------------------------

// Sum over the block of 256 threads: within warps, then the warps in their order. Thread 0 has it.
DEVICE double block_sum(double x) {
    SHARED(double, warps);
    x = warp_sum(x);
    if (lane_id() == 0) warps[warp_id()] = x;
    __syncthreads();
    double sum = 0.0;
    if (threadIdx.x == 0) {
        for (u32 w = 0; w < 8; ++w) sum += warps[w];
    }
    return sum;
}

// Sum of count <= a few hundred numbers by one block.
DEVICE double sum_of_partials(const double* partial, u32 count) {
    double x = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) x += partial[i];
    return block_sum(x);
}

template <class E> DEVICE void sum_of_squares(const SumOfSquaresParams& p) {
    double sum = 0.0;
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const double x = load<E>(p.x, i);
        sum += x * x;
    }
    const double total = block_sum(sum);
    if (threadIdx.x == 0) p.partial[blockIdx.x] = total;
}

DEVICE void sum_partial_squares(const SumOfSquaresParams& p) {
    const double total = sum_of_partials(p.partial, p.count);
    if (threadIdx.x == 0) *p.sum = total;
}

// By norm: x *= most / norm where the norm is above. By value: x limited to +-most.
template <class E> DEVICE void clip(const ClipParams& p) {
    using V = accumulator_t<E>;
    if (p.sum_of_squares == nullptr) {
        for (u64 i = first_element(); i < p.len; i += element_stride()) {
            store<E>(p.x, i, clamp(load<E>(p.x, i), V(p.most)));
        }
        return;
    }
    const double norm = square_root(*p.sum_of_squares);
    if (norm <= p.most) return;
    const V scale = V(p.most / norm);
    for (u64 i = first_element(); i < p.len; i += element_stride()) store<E>(p.x, i, load<E>(p.x, i) * scale);
}

template <class E> DEVICE void check_finite(const CheckFiniteParams& p) {
    bool bad = false;
    for (u64 i = first_element(); i < p.len; i += element_stride()) bad |= !is_finite(load<E>(p.x, i));
    // Who comes second finds the same code there.
    if (bad && p.status[STATUS_BAD_GRADIENT] == 0.0) {
        p.status[STATUS_BAD_GRADIENT] = p.code;
        if (p.status[STATUS_BAD_LOSS] == 0.0) p.status[STATUS_BAD_VALUE] = __uint_as_float(0x7fc00000u);
    }
}

// ---- losses -----------------------------------------------------------------------------------------------------------

// A probability kept clear of 0 and 1; `inside` says that it was so before.
template <class V> DEVICE V clip_probability(V p, bool& inside) {
    const V low = V(1e-7), high = V(1) - V(1e-7);
    inside = !(p < low || p > high);
    return p < low ? low : p > high ? high : p;
}

template <class V> DEVICE V sign(V d) { return d > V(0) ? V(1) : d < V(0) ? V(-1) : d; }

// What an element adds to the loss, times the observations, and its derivative by the prediction z.
template <class V> DEVICE V element_loss(u32 kind, V delta, V t, V z, V& slope) {
    const V d = z - t;
    switch (kind) {
        case LOSS_SQUARED: slope = V(2) * d; return d * d;
        case LOSS_ABSOLUTE: slope = sign(d); return absolute(d);
        case LOSS_HUBER:
            if (absolute(d) > delta) {
                slope = delta * sign(d);
                return delta * absolute(d) - V(0.5) * delta * delta;
            }
            slope = d;
            return V(0.5) * d * d;
        case LOSS_BINARY_LOGITS:
            slope = sigmoid(z) - t;
            return (z > V(0) ? z * (V(1) - t) : -z * t) + log1p_accurate(exp_accurate(-absolute(z)));
        default: {  // LOSS_BINARY
            bool inside;
            const V q = clip_probability(z, inside);
            slope = inside ? (q - t) / (q * (V(1) - q)) : V(0);
            return -(t * log_accurate(q) + (V(1) - t) * log1p_accurate(-q));
        }
    }
}

template <class E> DEVICE void elementwise_loss(const LossParams& p) {
    using V = accumulator_t<E>;
    double sum = 0.0;
    for (u64 i = first_element(); i < p.rows * p.columns; i += element_stride()) {
        V slope;
        const V weight = p.weights == nullptr ? V(1) : load<E>(p.weights, i / p.columns);
        sum += weight * element_loss<V>(p.kind, V(p.delta), load<E>(p.targets, i), load<E>(p.predictions, i), slope);
        if (p.gradient != nullptr) store<E>(p.gradient, i, V(p.scale) * weight * slope);
    }
    const double total = block_sum(sum);
    if (threadIdx.x == 0) p.partial[blockIdx.x] = total;
}

// Rows w, w + 8 * gridDim.x, ... belong to warp w of all.
//   From logits: q = softmax(z), loss -sum t ln q, gradient q sum(t) - t.
//   Else q = z / sum(z); with g = -t / q the gradient is (g - sum(g q)) / sum(z).
// A sparse target is the class whose t is 1; one that is no class makes them all NaN.
template <class E> DEVICE accumulator_t<E> target(const LossParams& p, u64 row, u64 i) {
    using V = accumulator_t<E>;
    if (!p.sparse) return load<E>(p.targets, i);
    const V t = load<E>(p.targets, row);
    if (!(t >= V(0) && t < V(p.columns) && V(u64(t)) == t)) return V(__uint_as_float(0x7fc00000u));
    return u64(t) == i - row * p.columns ? V(1) : V(0);
}

template <class E> DEVICE void categorical_loss(const LossParams& p) {
    using V = accumulator_t<E>;
    double sum = 0.0;
    for (u64 row = u64(blockIdx.x) * 8 + warp_id(); row < p.rows; row += u64(gridDim.x) * 8) {
        const u64 begin = row * p.columns + lane_id(), end = (row + 1) * p.columns;
        V largest = -V(__uint_as_float(0x7f800000u)), total = V(0), weight = V(0);
        const V of_row = p.weights == nullptr ? V(1) : load<E>(p.weights, row);
        const bool logits = p.kind == LOSS_CATEGORICAL_LOGITS;
        if (logits) {
            for (u64 i = begin; i < end; i += 32) largest = max(largest, load<E>(p.predictions, i));
            largest = warp_max(largest);
        }
        for (u64 i = begin; i < end; i += 32) {
            const V z = load<E>(p.predictions, i), t = target<E>(p, row, i);
            if (logits) {
                total += exp_accurate(z - largest);
                weight += t;
            } else {
                total += z;
            }
        }
        total = warp_sum(total);
        if (logits) {
            weight = warp_sum(weight);
            const V log_total = log_accurate(total);
            for (u64 i = begin; i < end; i += 32) {
                const V shifted = load<E>(p.predictions, i) - largest, t = target<E>(p, row, i);
                sum += of_row * t * (log_total - shifted);
                if (p.gradient != nullptr) {
                    store<E>(p.gradient, i, V(p.scale) * of_row * (weight * exp_accurate(shifted) / total - t));
                }
            }
            continue;
        }
        V mean = V(0);
        for (u64 i = begin; i < end; i += 32) {
            bool inside;
            const V q = clip_probability(load<E>(p.predictions, i) / total, inside), t = target<E>(p, row, i);
            sum -= of_row * t * log_accurate(q);
            mean += inside ? -t : V(0);
        }
        mean = warp_sum(mean);
        if (p.gradient == nullptr) continue;
        for (u64 i = begin; i < end; i += 32) {
            bool inside;
            const V q = clip_probability(load<E>(p.predictions, i) / total, inside);
            const V g = inside ? -target<E>(p, row, i) / q : V(0);
            store<E>(p.gradient, i, V(p.scale) * of_row * (g - mean) / total);
        }
    }
    const double total = block_sum(sum);
    if (threadIdx.x == 0) p.partial[blockIdx.x] = total;
}

// The loss into the status.
DEVICE void loss_to_status(const FinishLossParams& p) {
    const double loss = sum_of_partials(p.partial, p.count) * p.scale;
    if (threadIdx.x != 0) return;
    p.status[STATUS_LOSS] = loss;
    p.status[STATUS_TOTAL] += loss * p.weight;
    if (!is_finite(loss) && p.status[STATUS_BAD_LOSS] == 0.0) {
        p.status[STATUS_BAD_LOSS] = p.code;
        if (p.status[STATUS_BAD_GRADIENT] == 0.0) p.status[STATUS_BAD_VALUE] = loss;
    }
}
