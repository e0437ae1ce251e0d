// persistent_forward.cu - all forward steps of a layer in one launch, with R on the chip (families block, cluster, grid).
//
// Math       The cells' equations as in src/cell/*.rs, GRU with the reset after the product; sigmoid gates, tanh (RNN: or relu)
//            states, no peepholes, clips, coupled gates or projection: the rest is for step_forward.cu.
// Reads      gates A [T, B, G*H] (W x of all steps), weight_hh, biases, h0, c0, lengths, resets, and vector 0 from h_prev, where
//            begin_forward has put it.
// Writes     y, hn, cn; in training gates (activated), cell_state, q and h_prev of every step. With GridExchange h_prev is also
//            what the blocks exchange h through: slots = T and h_prev_stride = H rounded up to 32 in inference too, all of it
//            0xff before begin_forward.
// Launch     grid (blocks of a group, groups, D). Blocks of a group: ceil(h_prev_stride / UNITS), 1 with LocalExchange; a cluster
//            with ClusterExchange, all blocks of the launch resident together (cooperative) with GridExchange. Groups:
//            ceil(ceil(B / 8) / tiles). Shared memory: fixed + tiles * what a tile takes, see the catalog.
// Numerics   Products as Math says, sums and c in float; h is rounded to E once and is that from then on. Inference and training give
//            the same bits, as does every run.
// Failure    A wait that is never satisfied ends after `patience` with *fault != 0; the launch always ends.
// Backward   persistent_backward.cu or step_backward.cu; h_prev, gates, cell_state and q are as step_forward.cu leaves them.
// Oracle     src/backend/reference/ through tests/operator/backends/.
#include "persistent.cuh"

// What a pair reads of a step; on its way while the product is waited for.
template <int G> struct ForwardInputs {
    float wx[G];
    u32 valid;  // whether the step is within the sequence's length
    u32 anew;   // whether the next step starts from the initial state
};

// What a pair's step gave.
template <int G> struct ForwardResults {
    float y, start;  // the output, and what the next step starts from
    float c, q, saved[G];
    u32 valid;
};

// A unit's biases, and its step. `saved` are the gates' values.
template <class Cell> struct ForwardUnit;

template <> struct ForwardUnit<Rnn> {
    float bias;
    template <class E> DEVICE void load(const ForwardDirection& d, u32, u32 j) {
        bias = load_or_zero<E>(d.bias_ih, j) + load_or_zero<E>(d.bias_hh, j);
    }
    template <class F>
    DEVICE float step(const F& f, const float (&wx)[1], const float (&rh)[1], float, float&, float (&saved)[1], float&) const {
        return saved[0] = rnn_forward(f, wx[0] + bias + rh[0]);
    }
};

template <> struct ForwardUnit<Lstm> {
    float bias[4];
    template <class E> DEVICE void load(const ForwardDirection& d, u32 H, u32 j) {
#pragma unroll
        for (u32 k = 0; k < 4; ++k) bias[k] = load_or_zero<E>(d.bias_ih, k * H + j) + load_or_zero<E>(d.bias_hh, k * H + j);
    }
    template <class F>
    DEVICE float step(const F& f, const float (&wx)[4], const float (&rh)[4], float, float& c, float (&saved)[4], float&) const {
        float a[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) a[k] = wx[k] + bias[k] + rh[k];
        const LstmUnit<float> unit = lstm_forward(f, a, NoPeepholes<float>{}, c);
#pragma unroll
        for (int k = 0; k < 4; ++k) saved[k] = unit.gate[k];
        c = unit.c;
        return unit.u;
    }
};

template <> struct ForwardUnit<Gru> {
    float bias[3], bias_q;
    template <class E> DEVICE void load(const ForwardDirection& d, u32 H, u32 j) {
#pragma unroll
        for (u32 k = 0; k < 2; ++k) bias[k] = load_or_zero<E>(d.bias_ih, k * H + j) + load_or_zero<E>(d.bias_hh, k * H + j);
        bias[Gru::N] = load_or_zero<E>(d.bias_ih, Gru::N * H + j);
        bias_q = load_or_zero<E>(d.bias_hh, Gru::N * H + j);
    }
    template <class F>
    DEVICE float step(const F& f, const float (&wx)[3], const float (&rh)[3], float h_prev, float&, float (&saved)[3],
                      float& q) const {
        const float r = f.gate(wx[Gru::R] + bias[Gru::R] + rh[Gru::R]);
        const float z = f.gate(wx[Gru::Z] + bias[Gru::Z] + rh[Gru::Z]);
        q = rh[Gru::N] + bias_q;
        const float n = f.state(wx[Gru::N] + bias[Gru::N] + r * q);
        saved[Gru::R] = r;
        saved[Gru::Z] = z;
        saved[Gru::N] = n;
        return gru_output(z, n, h_prev);
    }
};

template <class Cell, class Math, template <int, int, class> class X, class S> struct PersistentForward {
    using E = typename Math::E;
    static constexpr int G = Cell::GATES;
    using Product = typename ProductOf<Math, G, S::CAPACITY, S>::type;
    using Exchange = X<1, S::CAPACITY * int(sizeof(E)), S>;
    enum { STATE_H, STATE_C };
    using Layout = Memory<Product, Exchange, G, Cell::CELL_STATE ? 2 : 1, S>;
    using Functions = StandardFunctions<!Math::EXACT>;

    static DEVICE void run(const PersistentForwardParams& launch) {
        const ForwardParams& p = launch.layer;
        const ForwardDirection& d = p.direction[blockIdx.z];
        SHARED(u8, shared);
        const Layout memory{shared};
        const u32 H = p.hidden_size, T = p.seq_len, stride = p.h_prev_stride;
        const u32 first_unit = blockIdx.x * S::UNITS, j = first_unit + S::unit();
        const bool real = j < H;  // otherwise padding of the vector, if it is inside that

        // With one slot, which only the first step's is, every time has it.
        const u32 slot_bytes = p.slots == 1 ? 0 : p.rows * stride * u32(sizeof(E));
        const u32 first_tile = blockIdx.y * launch.tiles, all_tiles = (p.batch + TILE - 1) / TILE;
        const Group group{{static_cast<u8*>(d.h_prev), slot_bytes, stride * u32(sizeof(E)), d.reverse, T},
                          first_tile * TILE,
                          p.batch,
                          H,
                          stride * u32(sizeof(E)),
                          min(launch.tiles, all_tiles - first_tile)};
        Exchange exchange(group, memory.fixed(), memory.tiles(), Layout::TILE_BYTES);

        if (threadIdx.x < 2) memory.flags()[threadIdx.x] = 0;
        Product product;
        product.load(ForwardMatrix<E>{static_cast<const E*>(d.weight_hh), H}, first_unit, memory.fragments());
        ForwardUnit<Cell> unit;
        if (real) unit.template load<E>(d, H, j);
        for (u32 tile = 0; tile < group.tiles; ++tile)
#pragma unroll
            for (int e = 0; e < S::CELLS; ++e) {
                const bool inside = real && S::row(e) < group.sequences(tile);
                const u64 own = u64(group.first_sequence + tile * TILE + S::row(e)) * H + j;
                memory.state(tile, STATE_H, e) = inside ? load_or_zero<E>(d.h0, own) : 0.0f;
                if (Cell::CELL_STATE) memory.state(tile, STATE_C, e) = inside ? load_or_zero<E>(d.c0, own) : 0.0f;
            }
        exchange.begin();
        __syncthreads();

        const Functions functions{!Cell::CELL_STATE && G == 1 && d.cell.state.kind == ACT_RELU};
        ForwardInputs<G> inputs[S::CELLS];
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) inputs[e] = {{}, 1, 0};
        prefetch(p, d, group, 0, 0, j, inputs);
        u32 item = 0;
        for (u32 step = 0; step < T; ++step) {
            for (u32 tile = 0; tile < group.tiles; ++tile, ++item) {
                const auto sums = memory.sums(item);
                volatile u32* const failed = memory.flags() + item % 2;  // one that the item before does not read any more
                {
                    const auto vector = exchange.wait(tile, step, {launch.fault, launch.patience, failed});
                    product.multiply(vector, group.row_bytes, group.sequences(tile), memory.fragments(), sums,
                                     H - min(H, first_unit));
                }
                __syncthreads();
                if (Exchange::CAN_FAIL && *failed) {  // the same for all threads of the block
                    exchange.end();
                    return;
                }
                ForwardResults<G> results[S::CELLS];
                const u32 sequences = group.sequences(tile);
                S::each_pair(sequences, [&](int e) {
                    advance(memory, functions, unit, sums, p.hold && !d.reverse, tile, e, inputs[e], results[e]);
                });
                if (p.resets != nullptr && real) restart(d, group, memory, tile, j, inputs, results);
                if (step + 1 < T)
#pragma unroll
                    for (int e = 0; e < S::CELLS; ++e) {
                        const float start[1] = {real ? results[e].start : 0.0f};
                        publish<E>(exchange, tile, step + 1, S::row(e), j, S::row(e) < sequences && j < stride, start);
                    }
                exchange.published(tile, step + 1);
                const bool last_tile = tile + 1 == group.tiles;
                if (!last_tile || step + 1 < T)
                    prefetch(p, d, group, last_tile ? step + 1 : step, last_tile ? 0 : tile + 1, j, inputs);
                if (real) store_results(p, d, group, step, tile, j, results);
            }
        }
        for (u32 tile = 0; tile < group.tiles; ++tile)
#pragma unroll
            for (int e = 0; e < S::CELLS; ++e) {
                if (!real || S::row(e) >= group.sequences(tile)) continue;
                const u64 own = u64(group.first_sequence + tile * TILE + S::row(e)) * H + j;
                if (d.hn != nullptr) store<E>(d.hn, own, memory.state(tile, STATE_H, e));
                if (Cell::CELL_STATE && d.cn != nullptr) store<E>(d.cn, own, memory.state(tile, STATE_C, e));
            }
        exchange.end();
    }

  private:
    // Places within a step are 32-bit, so that they add to a base which is the same for all threads.
    static DEVICE void prefetch(const ForwardParams& p, const ForwardDirection& d, const Group& group, u32 step, u32 tile,
                                u32 j, ForwardInputs<G> (&inputs)[S::CELLS]) {
        const u32 t = time_of(d.reverse, p.seq_len, step), H = p.hidden_size;
        const float* const wx = static_cast<const float*>(d.gates) + u64(t) * p.batch * (G * H);
        const u32 first = group.first_sequence + tile * TILE, sequences = group.sequences(tile);
        if (j >= H) return;
        const float* const own = wx + ((first + S::row(0)) * G * H + j);
        S::each_pair(sequences, [&](int e) {
#pragma unroll
            for (u32 k = 0; k < G; ++k) inputs[e].wx[k] = own[(e * S::ROW_STEP * G + k) * H];
        });
        if (p.lengths == nullptr && p.resets == nullptr) return;
        const bool more = p.resets != nullptr && step + 1 < p.seq_len;
        const u32 next = time_of(d.reverse, p.seq_len, step + 1);
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            const u32 b = first + S::row(e);
            if (S::row(e) >= sequences) continue;
            inputs[e].valid = is_valid(p.lengths, t, b);
            inputs[e].anew = more && is_reset(p.resets, p.batch, next, b) && is_valid(p.lengths, next, b);
        }
    }

    // The step of a pair. What padding computes is garbage that nobody uses.
    template <class Sums>
    static DEVICE void advance(const Layout& memory, const Functions& functions, const ForwardUnit<Cell>& unit, const Sums& sums,
                               bool hold, u32 tile, int e, const ForwardInputs<G>& in, ForwardResults<G>& out) {
        float rh[G];
        sums.sum(S::row(e), S::unit(), rh);
        const float h_before = memory.state(tile, STATE_H, e);
        float c = 0.0f;
        if constexpr (Cell::CELL_STATE) c = memory.state(tile, STATE_C, e);
        out.c = c;
        const float h = to_float(round_to<E>(unit.step(functions, in.wx, rh, h_before, c, out.saved, out.q)));
        out.valid = in.valid;
        out.y = in.valid ? h : hold ? h_before : 0.0f;
        out.start = in.valid ? h : h_before;
        memory.state(tile, STATE_H, e) = out.start;
        if constexpr (Cell::CELL_STATE) {
            out.c = in.valid ? c : out.c;
            memory.state(tile, STATE_C, e) = out.c;
        }
    }

    // Where the next step starts from the initial state, puts that in the place of the state.
    static DEVICE void restart(const ForwardDirection& d, const Group& group, const Layout& memory, u32 tile, u32 j,
                               const ForwardInputs<G> (&inputs)[S::CELLS], ForwardResults<G> (&results)[S::CELLS]) {
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile) || !inputs[e].anew) continue;
            const u64 own = u64(group.first_sequence + tile * TILE + S::row(e)) * group.hidden_size + j;
            results[e].start = memory.state(tile, STATE_H, e) = load_or_zero<E>(d.h0, own);
            if (Cell::CELL_STATE) memory.state(tile, STATE_C, e) = load_or_zero<E>(d.c0, own);
        }
    }

    // What nobody waits for.
    static DEVICE void store_results(const ForwardParams& p, const ForwardDirection& d, const Group& group, u32 step, u32 tile,
                                     u32 j, const ForwardResults<G> (&results)[S::CELLS]) {
        const u32 t = time_of(d.reverse, p.seq_len, step), H = p.hidden_size, sequences = group.sequences(tile);
        const u32 b = group.first_sequence + tile * TILE + S::row(0);  // of pair 0
        E* const y = static_cast<E*>(d.y) + t * p.y_time_stride + b * p.y_batch_stride + j;
        S::each_pair(sequences, [&](int e) { y[e * S::ROW_STEP * p.y_batch_stride] = round_to<E>(results[e].y); });
        if (p.save == SAVE_NOTHING) return;
        const u64 before = u64(t) * p.batch;
        float* const gates = static_cast<float*>(d.gates) + before * (G * H) + (b * G * H + j);
        float* const q = static_cast<float*>(d.q) + before * H + (b * H + j);
        float* const cell_state = static_cast<float*>(d.cell_state) + before * H + (b * H + j);
        S::each_pair(sequences, [&](int e) {
            const ForwardResults<G>& r = results[e];
            if (r.valid) {
#pragma unroll
                for (u32 k = 0; k < G; ++k) gates[(e * S::ROW_STEP * G + k) * H] = r.saved[k];
                if constexpr (G == 3) q[e * S::ROW_STEP * H] = r.q;
            }
            if constexpr (Cell::CELL_STATE) cell_state[e * S::ROW_STEP * H] = r.c;
        });
        if (Exchange::THROUGH_GLOBAL || step + 1 == p.seq_len) return;
        const u32 next = time_of(d.reverse, p.seq_len, step + 1);
        E* const h_prev = static_cast<E*>(d.h_prev) + u64(next) * p.rows * p.h_prev_stride + (b * p.h_prev_stride + j);
        S::each_pair(sequences, [&](int e) { h_prev[e * S::ROW_STEP * p.h_prev_stride] = round_to<E>(results[e].start); });
    }
};

// A, B and C are this with LocalExchange, ClusterExchange and GridExchange (StagedGridExchange for exact products).
template <class Cell, class Math, template <int, int, class> class X, class S, int FIXED_BYTES, int TILE_BYTES>
DEVICE void persistent_forward(const PersistentForwardParams& p) {
    using Kernel = PersistentForward<Cell, Math, X, S>;
    static_assert(has_shared_bytes<typename Kernel::Layout, FIXED_BYTES, TILE_BYTES>(), "");
    Kernel::run(p);
}
