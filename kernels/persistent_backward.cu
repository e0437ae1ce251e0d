// persistent_backward.cu - all backward steps of a layer in one launch, with R^T on the chip (families A, B, C).
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
// Oracle     src/backend/reference.rs through tests/backends.rs.
#include "persistent.cuh"

// What a pair reads of a step; on its way while the product is waited for.
template <class Cell> struct BackwardInputs {
    float saved[Cell::GATES];
    float dy;              // zero where it does not count
    float c, c_prev;       // LSTM
    float q, h_prev;       // GRU
    bool valid;            // the step is within the sequence's length
    bool anew_after;       // the step after started from the initial state
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
    lstm_backward(f, in.saved, Peephole<float>{0.0f, 0.0f, 0.0f}, in.c_prev, in.c, dh, dc, da);
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
        const Group group{{static_cast<u8*>(launch.exchange[blockIdx.z]), u64(p.batch) * row_bytes, row_bytes, 0, T},
                          first_tile * TILE,
                          p.batch,
                          row_bytes,
                          min(launch.tiles, all_tiles - first_tile)};
        Exchange exchange(group, memory.fixed(), memory.tiles(), Layout::TILE_BYTES, launch.status, launch.polls);

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
        prefetch(p, d, group, 0, 0, j, inputs);
        u32 item = 0;
        // Round n computes dh of step T-1-n, with the product of the vector before, and publishes vector n; the last round has
        // no step left and writes dh.
        for (u32 n = 0; n <= T; ++n) {
            for (u32 tile = 0; tile < group.tiles; ++tile, ++item) {
                const auto sums = memory.sums(item);
                if (n > 0) {
                    const auto vector = exchange.wait(tile, n - 1);
                    product.multiply(vector, group.row_bytes, group.sequences(tile), memory.fragments(), sums,
                                     H - min(H, first_unit));
                }
                if (Exchange::CAN_FAIL && exchange.failed()) memory.flags()[item % 2] = 1;
                __syncthreads();
                if (Exchange::CAN_FAIL && memory.flags()[item % 2]) {  // the same for all threads of the block
                    exchange.end();
                    return;
                }
                float da[S::CELLS][G], da_n[S::CELLS];
#pragma unroll
                for (int e = 0; e < S::CELLS; ++e) {
                    const u32 row = S::row(e);
                    const bool present = row < group.sequences(tile);
#pragma unroll
                    for (int k = 0; k < G; ++k) da[e][k] = 0.0f;
                    da_n[e] = 0.0f;
                    if (present && real) {
                        const u64 own = u64(group.first_sequence + tile * TILE + row) * H + j;
                        float dh = memory.state(tile, STATE_DH, e), product_sum[1] = {0.0f};
                        if (n > 0) sums.sum(row, S::unit(), product_sum);
                        dh += product_sum[0];
                        if (n < T) {
                            step(d, memory, functions, own, tile, e, dh, inputs[e], da[e], da_n[e]);
                        } else {
                            static_cast<float*>(d.dh)[own] = dh;
                            if (Cell::CELL_STATE) static_cast<float*>(d.dc)[own] = memory.state(tile, STATE_DC, e);
                        }
                    }
                    if (n < T) publish<E>(exchange, tile, n, row, j, present && j < padded, da[e]);
                }
                if (n == T) {  // the next tile's sums take the place of this one's
                    if (Exchange::SUM_BUFFERS == 1) __syncthreads();
                    continue;
                }
                exchange.published(tile, n);
                const bool last_tile = tile + 1 == group.tiles;
                if (!last_tile || n + 1 < T)
                    prefetch(p, d, group, last_tile ? n + 1 : n, last_tile ? 0 : tile + 1, j, inputs);
                if (real) store_gradients(p, d, group, n, tile, j, da, da_n);
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
        const float* const gates = static_cast<const float*>(d.gates) + rows * (G * H);
        const E* const dy = static_cast<const E*>(d.dy) + t * p.dy_time_stride + j;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            Inputs& in = inputs[e];
            in.valid = true;
            in.anew_after = false;
            in.dy = 0.0f;
            if (j >= H || S::row(e) >= group.sequences(tile)) continue;
            const u32 b = group.first_sequence + tile * TILE + S::row(e), own = b * H + j;
            const float* const saved = gates + (b * G * H + j);
#pragma unroll
            for (u32 k = 0; k < G; ++k) in.saved[k] = saved[k * H];
            if constexpr (G == 3) {
                in.q = (static_cast<const float*>(d.q) + rows * H)[own];
                in.h_prev = to_float((static_cast<const E*>(d.h_prev) + u64(t) * p.rows * p.h_prev_stride)[b * p.h_prev_stride + j]);
            }
            if (p.lengths != nullptr) in.valid = t < p.lengths[b];
            bool anew = step == 0;
            if (p.resets != nullptr) {
                in.anew_after = n > 0 && is_reset(p.resets, p.batch, after, b) && is_valid(p.lengths, after, b);
                anew = anew || (in.valid && is_reset(p.resets, p.batch, t, b));
            }
            // Past the length y is zero, or in the forward direction under `hold` the last valid output again.
            if (d.dy != nullptr && (in.valid || (p.hold && !d.reverse))) in.dy = to_float(dy[b * p.dy_batch_stride]);
            if constexpr (Cell::CELL_STATE) {
                const float* const c = static_cast<const float*>(d.cell_state);
                in.c = (c + rows * H)[own];
                in.c_prev = anew ? load_or_zero<E>(d.c0, own) : (c + u64(before) * p.batch * H)[own];
            }
        }
    }

    // The step of a pair, from dh of the output it leaves behind, dy aside.
    static DEVICE void step(const BackwardDirection& d, const Layout& memory, const Functions& functions, u64 own, u32 tile,
                            int e, float dh, const Inputs& in, float (&da)[G], float& da_n) {
        float dc = Cell::CELL_STATE ? memory.state(tile, STATE_DC, e) : 0.0f;
        if (in.anew_after) {  // what was carried belongs to the initial state
            static_cast<float*>(d.dh_reset)[own] += dh;
            if (Cell::CELL_STATE) static_cast<float*>(d.dc_reset)[own] += dc;
            dh = dc = 0.0f;
        }
        dh += in.dy;
        if (in.valid) backward_unit(Cell{}, functions, in, dh, dc, da, da_n);
        memory.state(tile, STATE_DH, e) = dh;
        if (Cell::CELL_STATE) memory.state(tile, STATE_DC, e) = dc;
    }

    static DEVICE void store_gradients(const BackwardParams& p, const BackwardDirection& d, const Group& group, u32 n, u32 tile,
                                       u32 j, const float (&da)[S::CELLS][G], const float (&da_n)[S::CELLS]) {
        const u32 t = time_of(d.reverse, p.seq_len, p.seq_len - 1 - n), H = p.hidden_size;
        E* const dgates = static_cast<E*>(d.dgates) + u64(t) * p.batch * (SLOTS * H) + j;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile)) continue;
            E* const to = dgates + (group.first_sequence + tile * TILE + S::row(e)) * SLOTS * H;
            if constexpr (SLOTS == G) {
#pragma unroll
                for (u32 k = 0; k < G; ++k) to[k * H] = round_to<E>(da[e][k]);
            } else {
                to[Gru::SLOT_N * H] = round_to<E>(da_n[e]);
                to[Gru::SLOT_R * H] = round_to<E>(da[e][Gru::R]);
                to[Gru::SLOT_Z * H] = round_to<E>(da[e][Gru::Z]);
                to[Gru::SLOT_Q * H] = round_to<E>(da[e][Gru::N]);
            }
        }
    }
};

// A, B and C are this with LocalExchange, ClusterExchange and GridExchange (StagedGridExchange for exact products).
template <class Cell, class Math, template <int, int, class> class X, class S, int FIXED_BYTES, int TILE_BYTES>
DEVICE void persistent_backward(const PersistentBackwardParams& p) {
    using Kernel = PersistentBackward<Cell, Math, X, S>;
    static_assert(has_shared_bytes<typename Kernel::Layout, FIXED_BYTES, TILE_BYTES>(), "");
    Kernel::run(p);
}
