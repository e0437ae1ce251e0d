// persistent_backward.cu - all backward steps of a layer in one launch, with R^T on the chip (families block, cluster, grid).
//
// Math       The cells' derivatives as in src/cell/*.rs, for the options of persistent_forward.cu. A step computes the gradients of
//            its gates from dh, and then dh of the step before as R^T dgates plus what needs no product; a block computes dh of its
//            own units, for which it needs the dgates of all units: those are what the blocks exchange.
// Reads      What forward saved (activated gates, cell_state, q, h_prev), dy, c0, lengths, resets, weight_hh; dh and dc, where
//            begin_backward has put the gradients of the final states.
// Writes     dgates of every step, zero past a sequence's length; dh, dc, dh_reset, dc_reset as finish_backward expects them. With
//            GridExchange also `exchange` E [T, B, exchange_stride], exchange_stride = G * (H rounded up to 32), 0xff before.
// Launch     As persistent_forward.cu, with ceil((H rounded up to 32) / UNITS) blocks of a group.
// Numerics   Products as Math says, of dgates rounded to E; everything else in float. The same bits every run.
// Failure    As persistent_forward.cu.
// Oracle     src/backend/reference/ through tests/operator/backends/.
#include "persistent.cuh"

// What a pair reads of a step; on its way while the product is waited for.
template <class Cell> struct BackwardInputs {
    float saved[Cell::GATES];
    float dy;              // zero where it does not count
    float c, c_prev;       // LSTM
    float q, h_prev;       // GRU
    u32 valid;             // whether the step is within the sequence's length
    u32 anew_after;        // whether the step after started from the initial state
};

// What a pair's step gave: gradients of gates, and (GRU) of n.
template <int G> struct BackwardResults {
    float da[G], da_n;
};

// A step of a unit: gradients of its gates, in the order of the weights' rows, and (GRU) of n; dh becomes the part of dh of the
// step before that needs no product, dc that of c of the step before.
template <class F>
DEVICE void backward_unit(Rnn, const F& f, const BackwardInputs<Rnn>& in, float& dh, float&, float (&da)[1], float&) {
    da[0] = rnn_backward(f, in.saved[0], dh);
    dh = 0.0f;
}
template <class F>
DEVICE void backward_unit(Lstm, const F& f, const BackwardInputs<Lstm>& in, float& dh, float& dc, float (&da)[4], float&) {
    lstm_backward(f, in.saved, NoPeepholes<float>{}, in.c_prev, in.c, dh, dc, da);
    dh = 0.0f;
}
template <class F>
DEVICE void backward_unit(Gru, const F& f, const BackwardInputs<Gru>& in, float& dh, float&, float (&da)[3], float& da_n) {
    float r, slope_r;
    f.saved_gate(in.saved[Gru::R], r, slope_r);
    const GruGradient<float> g = gru_backward(f, in.saved[Gru::Z], in.saved[Gru::N], in.h_prev, dh);
    da_n = g.da_n;
    da[Gru::R] = in.q * g.da_n * slope_r;
    da[Gru::Z] = g.da_z;
    da[Gru::N] = r * g.da_n;  // what R_n and b_hn get
    dh = g.dh_prev;
}

template <class Cell, class Math, template <int, int, class> class X, class S> struct PersistentBackward {
    using E = typename Math::E;
    static constexpr int G = Cell::GATES, SLOTS = Cell::GRADIENT_SLOTS;
    using Product = typename ProductOf<Math, 1, G * S::CAPACITY, S>::type;
    using Exchange = X<0, G * S::CAPACITY * int(sizeof(E)), S>;
    enum { STATE_DH, STATE_DC };
    using Layout = Memory<Product, Exchange, 1, Cell::CELL_STATE ? 2 : 1, S>;
    using Functions = StandardFunctions<!Math::EXACT>;
    using Inputs = BackwardInputs<Cell>;

    static DEVICE void run(const PersistentBackwardParams& launch) {
        const BackwardParams& p = launch.layer;
        const BackwardDirection& d = p.direction[blockIdx.z];
        SHARED(u8, shared);
        const Layout memory{shared};
        const u32 H = p.hidden_size, T = p.seq_len, padded = (H + 31) / 32 * 32, row_bytes = padded * G * u32(sizeof(E));
        const u32 first_unit = blockIdx.x * S::UNITS, j = first_unit + S::unit();
        const bool real = j < H;  // otherwise padding of the vector, if it is inside that

        const u32 first_tile = blockIdx.y * launch.tiles, all_tiles = (p.batch + TILE - 1) / TILE;
        // Vector n is that of step T-1-n.
        const Group group{{static_cast<u8*>(launch.exchange[blockIdx.z]), p.batch * row_bytes, row_bytes, 0, T},
                          first_tile * TILE,
                          p.batch,
                          H,
                          row_bytes,
                          min(launch.tiles, all_tiles - first_tile)};
        Exchange exchange(group, memory.fixed(), memory.tiles(), Layout::TILE_BYTES);

        if (threadIdx.x < 2) memory.flags()[threadIdx.x] = 0;
        Product product;
        product.load(BackwardMatrix<E, G>{static_cast<const E*>(d.weight_hh), H}, first_unit, memory.fragments());
        for (u32 tile = 0; tile < group.tiles; ++tile)
#pragma unroll
            for (int e = 0; e < S::CELLS; ++e) {
                const bool inside = real && S::row(e) < group.sequences(tile);
                const u64 own = u64(group.first_sequence + tile * TILE + S::row(e)) * H + j;
                memory.state(tile, STATE_DH, e) = inside ? static_cast<const float*>(d.dh)[own] : 0.0f;
                if (Cell::CELL_STATE)
                    memory.state(tile, STATE_DC, e) = inside ? static_cast<const float*>(d.dc)[own] : 0.0f;
            }
        exchange.begin();
        __syncthreads();

        const Functions functions{!Cell::CELL_STATE && G == 1 && d.cell.state.kind == ACT_RELU};
        Inputs inputs[S::CELLS];
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            inputs[e] = Inputs{};
            inputs[e].valid = 1;
        }
        prefetch(p, d, group, 0, 0, j, inputs);
        u32 item = 0;
        // Round n computes dh of step T-1-n, with the product of the vector before, and publishes vector n; the last round has
        // no step left and writes dh.
        for (u32 n = 0; n <= T; ++n) {
            for (u32 tile = 0; tile < group.tiles; ++tile, ++item) {
                const auto sums = memory.sums(item);
                volatile u32* const failed = memory.flags() + item % 2;  // one that the item before does not read any more
                if (n > 0) {
                    const auto vector = exchange.wait(tile, n - 1, {launch.fault, launch.patience, failed});
                    product.multiply(vector, group.row_bytes, group.sequences(tile), memory.fragments(), sums,
                                     H - min(H, first_unit));
                }
                __syncthreads();
                if (Exchange::CAN_FAIL && *failed) {  // the same for all threads of the block
                    exchange.end();
                    return;
                }
                const u32 sequences = group.sequences(tile);
                if (n == T) {
                    if (real) finish(d, group, memory, sums, tile, j);
                    if (Exchange::SUM_BUFFERS == 1) __syncthreads();  // the next tile's sums take the place of this one's
                    continue;
                }
                BackwardResults<G> results[S::CELLS];
                if (p.resets != nullptr && n > 0 && real) restart(d, group, memory, sums, tile, j, inputs);
                S::each_pair(sequences, [&](int e) { step(memory, functions, sums, n, tile, e, inputs[e], results[e]); });
#pragma unroll
                for (int e = 0; e < S::CELLS; ++e) {
                    float da[G];
#pragma unroll
                    for (int k = 0; k < G; ++k) da[k] = real ? results[e].da[k] : 0.0f;
                    publish<E>(exchange, tile, n, S::row(e), j, S::row(e) < sequences && j < padded, da);
                }
                exchange.published(tile, n);
                const bool last_tile = tile + 1 == group.tiles;
                if (!last_tile || n + 1 < T)
                    prefetch(p, d, group, last_tile ? n + 1 : n, last_tile ? 0 : tile + 1, j, inputs);
                if (real) store_gradients(p, d, group, n, tile, j, results);
            }
        }
        exchange.end();
    }

  private:
    // Places within a step are 32-bit, so that they add to a base which is the same for all threads.
    static DEVICE void prefetch(const BackwardParams& p, const BackwardDirection& d, const Group& group, u32 n, u32 tile, u32 j,
                                Inputs (&inputs)[S::CELLS]) {
        const u32 step = p.seq_len - 1 - n, t = time_of(d.reverse, p.seq_len, step), H = p.hidden_size;
        const u32 after = n > 0 ? time_of(d.reverse, p.seq_len, step + 1) : t;
        const u32 before = step > 0 ? time_of(d.reverse, p.seq_len, step - 1) : t;
        const u64 rows = u64(t) * p.batch;
        const u32 first = group.first_sequence + tile * TILE, sequences = group.sequences(tile);
        if (j >= H) return;
        const u32 b = first + S::row(0), own = b * H + j;  // of pair 0
        const float* const gates = static_cast<const float*>(d.gates) + rows * (G * H) + (b * G * H + j);
        const float* const q = static_cast<const float*>(d.q) + rows * H + own;
        const float* const c = static_cast<const float*>(d.cell_state) + rows * H + own;
        const float* const c_prev = static_cast<const float*>(d.cell_state) + u64(before) * p.batch * H + own;
        const E* const h_prev =
            static_cast<const E*>(d.h_prev) + u64(t) * p.rows * p.h_prev_stride + (b * p.h_prev_stride + j);
        const E* const dy = static_cast<const E*>(d.dy) + t * p.dy_time_stride + b * p.dy_batch_stride + j;
        S::each_pair(sequences, [&](int e) {
            Inputs& in = inputs[e];
            const u32 rows_on = e * S::ROW_STEP;
#pragma unroll
            for (u32 k = 0; k < G; ++k) in.saved[k] = gates[(rows_on * G + k) * H];
            if constexpr (G == 3) {
                in.q = q[rows_on * H];
                in.h_prev = to_float(h_prev[rows_on * p.h_prev_stride]);
            }
            if constexpr (Cell::CELL_STATE) {
                in.c = c[rows_on * H];
                in.c_prev = c_prev[rows_on * H];
            }
            in.dy = d.dy != nullptr ? to_float(dy[rows_on * p.dy_batch_stride]) : 0.0f;
        });
        if (step > 0 && p.lengths == nullptr && p.resets == nullptr) return;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            Inputs& in = inputs[e];
            const u32 sequence = first + S::row(e);
            if (S::row(e) >= sequences) continue;
            in.valid = is_valid(p.lengths, t, sequence);
            in.anew_after = n > 0 && is_reset(p.resets, p.batch, after, sequence) && is_valid(p.lengths, after, sequence);
            // Past the length y is zero, or in the forward direction under `hold` the last valid output again.
            if (!in.valid && !(p.hold && !d.reverse)) in.dy = 0.0f;
            if (Cell::CELL_STATE && starts_anew(p.lengths, p.resets, p.batch, step, t, sequence))
                in.c_prev = load_or_zero<E>(d.c0, u64(sequence) * H + j);
        }
    }

    // Gradient of the output that pair e's step before left behind, dy aside, as far as the state holds it and the product.
    template <class Sums> static DEVICE float carried(const Layout& memory, const Sums& sums, u32 tile, int e) {
        float product[1];
        sums.sum(S::row(e), S::unit(), product);
        return memory.state(tile, STATE_DH, e) + product[0];
    }

    // Where the step after started from the initial state, what was carried belongs to that.
    template <class Sums>
    static DEVICE void restart(const BackwardDirection& d, const Group& group, const Layout& memory, const Sums& sums, u32 tile,
                               u32 j, const Inputs (&inputs)[S::CELLS]) {
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile) || !inputs[e].anew_after) continue;
            const u64 own = u64(group.first_sequence + tile * TILE + S::row(e)) * group.hidden_size + j;
            static_cast<float*>(d.dh_reset)[own] += carried(memory, sums, tile, e);
            if (Cell::CELL_STATE) static_cast<float*>(d.dc_reset)[own] += memory.state(tile, STATE_DC, e);
        }
    }

    // The step of a pair. What padding computes is garbage that nobody uses.
    template <class Sums>
    static DEVICE void step(const Layout& memory, const Functions& functions, const Sums& sums, u32 n, u32 tile, int e,
                            const Inputs& in, BackwardResults<G>& out) {
        float dh = n > 0 ? carried(memory, sums, tile, e) : memory.state(tile, STATE_DH, e);
        float dc = 0.0f;
        if constexpr (Cell::CELL_STATE) dc = in.anew_after ? 0.0f : memory.state(tile, STATE_DC, e);
        dh = (in.anew_after ? 0.0f : dh) + in.dy;
        float dh_direct = dh, dc_before = dc;
        backward_unit(Cell{}, functions, in, dh_direct, dc_before, out.da, out.da_n);
#pragma unroll
        for (int k = 0; k < G; ++k) out.da[k] = in.valid ? out.da[k] : 0.0f;
        if constexpr (G == 3) out.da_n = in.valid ? out.da_n : 0.0f;
        memory.state(tile, STATE_DH, e) = in.valid ? dh_direct : dh;
        if constexpr (Cell::CELL_STATE) memory.state(tile, STATE_DC, e) = in.valid ? dc_before : dc;
    }

    // What goes to the initial state.
    template <class Sums>
    static DEVICE void finish(const BackwardDirection& d, const Group& group, const Layout& memory, const Sums& sums, u32 tile,
                              u32 j) {
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile)) continue;
            const u64 own = u64(group.first_sequence + tile * TILE + S::row(e)) * group.hidden_size + j;
            static_cast<float*>(d.dh)[own] = carried(memory, sums, tile, e);
            if (Cell::CELL_STATE) static_cast<float*>(d.dc)[own] = memory.state(tile, STATE_DC, e);
        }
    }

    static DEVICE void store_gradients(const BackwardParams& p, const BackwardDirection& d, const Group& group, u32 n, u32 tile,
                                       u32 j, const BackwardResults<G> (&results)[S::CELLS]) {
        const u32 t = time_of(d.reverse, p.seq_len, p.seq_len - 1 - n), H = p.hidden_size;
        const u32 b = group.first_sequence + tile * TILE + S::row(0);  // of pair 0
        E* const dgates = static_cast<E*>(d.dgates) + u64(t) * p.batch * (SLOTS * H) + (b * SLOTS * H + j);
        S::each_pair(group.sequences(tile), [&](int e) {
            const BackwardResults<G>& r = results[e];
            const u32 row = e * S::ROW_STEP * SLOTS;
            if constexpr (SLOTS == G) {
#pragma unroll
                for (u32 k = 0; k < G; ++k) dgates[(row + k) * H] = round_to<E>(r.da[k]);
            } else {
                dgates[(row + Gru::SLOT_N) * H] = round_to<E>(r.da_n);
                dgates[(row + Gru::SLOT_R) * H] = round_to<E>(r.da[Gru::R]);
                dgates[(row + Gru::SLOT_Z) * H] = round_to<E>(r.da[Gru::Z]);
                dgates[(row + Gru::SLOT_Q) * H] = round_to<E>(r.da[Gru::N]);
            }
        });
    }
};

// The families block, cluster and grid are this with LocalExchange, ClusterExchange and GridExchange (StagedGridExchange for exact products).
template <class Cell, class Math, template <int, int, class> class X, class S, int FIXED_BYTES, int TILE_BYTES>
DEVICE void persistent_backward(const PersistentBackwardParams& p) {
    using Kernel = PersistentBackward<Cell, Math, X, S>;
    static_assert(has_shared_bytes<typename Kernel::Layout, FIXED_BYTES, TILE_BYTES>(), "");
    Kernel::run(p);
}
