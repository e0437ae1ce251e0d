// gemm.cuh - what the kernels of matrix products share: orientations, which product a block computes, rows one after the other, and how
// results are stored.
#pragma once
#include "params_gemm.cuh"

enum Orientation { NT, NN, TN };

// A piece of a split sum has whole tiles of gemm.cu for the tensor cores, so that all kernels of a way to multiply add up in the same
// order.
constexpr int PIECE_DEPTH = 32;

// The product and the piece of k that a block along z has.
template <class E> struct GemmPiece {
    const GemmParams& p;
    u32 product, split;
    const GemmProblem& problem;

    DEVICE GemmPiece(const GemmParams& p, u32 z)
        : p(p), product(z / p.splits), split(z % p.splits), problem(p.problem[p.problems > 1 ? product : 0]) {}

    DEVICE GemmTerm term(u32 i) const {
        GemmTerm term = problem.term[i];
        term.a.data = static_cast<const E*>(term.a.data) + product * p.a_apart;
        term.b.data = static_cast<const E*>(term.b.data) + product * p.b_apart;
        return term;
    }
    // The first k of the piece, and of the next one: runs of whole tiles of BK, so that a split changes the order of sums but not
    // what is in a tile.
    template <int BK> DEVICE u32 begin(const GemmTerm& term) const { return edge<BK>(term.k, split); }
    template <int BK> DEVICE u32 end(const GemmTerm& term) const { return min(edge<BK>(term.k, split + 1), term.k); }

    // Whether results are accumulators.
    DEVICE bool wide() const { return p.wide || p.splits > 1; }
    // Sums are multiplied with it before they are stored.
    DEVICE double alpha() const { return p.splits > 1 ? 1.0 : p.alpha; }
    DEVICE bool accumulates() const { return p.splits == 1 && p.accumulate; }
    // What is added to column n: once, where there are several pieces to their sum.
    DEVICE accumulator_t<E> bias(u32 n) const { return p.splits > 1 ? accumulator_t<E>(0) : bias_of_c(n); }
    DEVICE accumulator_t<E> bias_of_c(u32 n) const {
        if (problem.bias == nullptr || n >= problem.n) return 0;
        return p.wide ? static_cast<const accumulator_t<E>*>(problem.bias)[n] : load<E>(problem.bias, n);
    }
    // The same of four adjacent columns.
    DEVICE float4 bias4(u32 n) const { return make_float4(bias(n), bias(n + 1), bias(n + 2), bias(n + 3)); }
    // Where the piece's results go: c, or with several pieces its partial sums.
    DEVICE Rows result() const {
        if (p.splits == 1) return c();
        const u64 piece = u64(product) * p.splits + split;
        return {static_cast<accumulator_t<E>*>(p.partial) + piece * p.partial_apart, problem.n, 0, 1, 0};
    }
    // Where the product's results go.
    DEVICE Rows c() const {
        Rows c = problem.c;
        c.data = static_cast<const u8*>(c.data) + product * p.c_apart * (p.wide ? sizeof(accumulator_t<E>) : sizeof(E));
        return c;
    }

  private:
    template <int BK> DEVICE u32 edge(u32 k, u32 piece) const {
        const u32 tiles = (k + BK - 1) / BK;
        return u32(u64(tiles) * piece / p.splits) * BK;
    }
};

// A row that advances by a constant, without a division a row.
struct AdvancingRow {
    u32 outer, inner, size, step_outer, step_inner;

    DEVICE AdvancingRow(u32 size, u32 row, u32 by)
        : outer(row / size), inner(row % size), size(size), step_outer(by / size), step_inner(by % size) {}
    // Whether it entered the next group besides.
    DEVICE bool advance() {
        outer += step_outer;
        inner += step_inner;
        const bool entered = inner >= size;
        if (entered) {
            inner -= size;
            ++outer;
        }
        return entered;
    }
};

// The offset at which such a row of a matrix begins.
struct AdvancingOffset {
    u64 at, step, step_entering;

    DEVICE AdvancingOffset(const Rows& rows, const AdvancingRow& row)
        : at(row.outer * rows.outer_stride + row.inner * rows.inner_stride),
          step(row.step_outer * rows.outer_stride + row.step_inner * rows.inner_stride),
          step_entering(step + rows.outer_stride - row.size * rows.inner_stride) {}
    DEVICE void advance(bool entered) { at += entered ? step_entering : step; }
};

// Sets a number, or adds to it.
template <class E> DEVICE void store_or_add(void* c, u64 at, accumulator_t<E> x, bool add) {
    store<E>(c, at, add ? load<E>(c, at) + x : x);
}

// alpha v + bias, rounded once.
DEVICE float4 scaled_with_bias(float alpha, float4 v, float4 bias) {
    return make_float4(fused_multiply_add(alpha, v.x, bias.x), fused_multiply_add(alpha, v.y, bias.y),
                       fused_multiply_add(alpha, v.z, bias.z), fused_multiply_add(alpha, v.w, bias.w));
}

// Sets four adjacent numbers, or adds to them; those from n on do not exist.
template <class E> DEVICE void store4(E* to, float4 v, u32 n, bool accumulate) {
    const float values[4] = {v.x, v.y, v.z, v.w};
    if (n >= 4 && reinterpret_cast<u64>(to) % (4 * sizeof(E)) == 0) {
        if constexpr (is_same<E, f32>::value) {
            if (accumulate) {
                const float4 old = *reinterpret_cast<const float4*>(to);
                v = make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w);
            }
            *reinterpret_cast<float4*>(to) = v;
        } else {
            if (accumulate) {
                const uint2 old = *reinterpret_cast<const uint2*>(to);
                v = make_float4(unpack_low<E>(old.x) + v.x, unpack_high<E>(old.x) + v.y, unpack_low<E>(old.y) + v.z,
                                unpack_high<E>(old.y) + v.w);
            }
            *reinterpret_cast<uint2*>(to) = uint2{pack<E>(v.x, v.y), pack<E>(v.z, v.w)};
        }
    } else {
        for (u32 i = 0; i < min(n, 4u); ++i) store_or_add<E>(to, i, values[i], accumulate);
    }
}
