// elementwise.cu - activations, arithmetic and moves of elements.
//
// Math       Given with each kernel.
// Reads, writes  See the kernels' structs in params_ops.cuh. Nothing is saved for backward but what they name.
// Launch     Block 128, any grid along x; a thread takes elements i, i + gridDim.x * 128, ...
// Numerics   Elements are loaded into the accumulator type (float; double for f64) and rounded once when stored. Moves keep the bits.
//            NaN stays NaN.
// Oracle     src/backend/reference/ops.rs.
#include "activations.cuh"
#include "elements.cuh"

// ---- activations ------------------------------------------------------------------------------------------------------

// values = f(values + bias), and what went into f where it is asked for.
template <class E> DEVICE void bias_activation(const BiasActivationParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        auto x = load<E>(p.values, i);
        if (p.bias != nullptr) x += load<E>(p.bias, i % p.columns);
        if (p.inputs != nullptr) store<E>(p.inputs, i, x);
        store<E>(p.values, i, activate(p.f, x));
    }
}

// dx = dy * f'(x). `values` is y = f(x), or x for those functions whose slope is of x; activation_slope reads only the one it needs.
template <class E> DEVICE void activation_gradient(const ActivationGradientParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const auto value = load<E>(p.values, i);
        store<E>(p.dx, i, load<E>(p.dy, i) * activation_slope(p.f, value, value));
    }
}

// ---- arithmetic -------------------------------------------------------------------------------------------------------

template <class E> DEVICE void multiply(const MultiplyParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        store<E>(p.out, i, load<E>(p.a, i) * load<E>(p.b, i));
    }
}

template <class E> DEVICE void fill(const FillParams& p) {
    for (u64 i = first_element(); i < p.len; i += element_stride()) store<E>(p.x, i, accumulator_t<E>(p.value));
}

template <class E> DEVICE void scale_add(const ScaleAddParams& p) {
    using V = accumulator_t<E>;
    const V alpha = V(p.alpha), beta = V(p.beta);
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V x = alpha * load<E>(p.x, i);
        store<E>(p.y, i, p.beta == 0.0 ? x : x + beta * load<E>(p.y, i));
    }
}

template <class E> DEVICE void scale_rows(const ScaleRowsParams& p) {
    using V = accumulator_t<E>;
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const V factor = load<E>(p.factors, i / p.columns), x = load<E>(p.x, i);
        store<E>(p.y, i, !p.inverse ? x * factor : factor == V(0) ? V(0) : x / factor);
    }
}

// ---- moves ------------------------------------------------------------------------------------------------------------

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

template <class E> DEVICE void select_rows(const SelectRowsParams& p) {
    using V = accumulator_t<E>;
    const E* const a = static_cast<const E*>(p.a);
    const E* const b = static_cast<const E*>(p.b);
    for (u64 i = first_element(); i < p.len; i += element_stride()) {
        const bool first = load<E>(p.mask, i / p.columns) != V(0);
        static_cast<E*>(p.out)[i] = first ? a[i] : b == nullptr ? zero<E>() : b[i];
    }
}
