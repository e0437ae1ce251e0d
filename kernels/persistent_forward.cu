// persistent_forward.cu - all forward steps of a layer in one launch, with R on the chip (families A, B, C).
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
// Failure    A wait that is never satisfied ends after `polls` polls with *status != 0; the launch always ends.
// Backward   persistent_backward.cu or step_backward.cu; h_prev, gates, cell_state and q are as step_forward.cu leaves them.
// Oracle     src/backend/reference.rs through tests/backends.rs.
#include "persistent.cuh"

// What a pair reads of a step; on its way while the product is waited for.
template <int G> struct ForwardInputs {
    float wx[G];
    bool valid;  // the step is within the sequence's length
    bool anew;   // the next step starts from the initial state
};

// What a pair's step gave.
template <int G> struct ForwardResults {
    float h_before, h, start;  // h of the step before, of this one, and what the next one starts from
    float c, q, saved[G];
    bool valid;
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
        const LstmUnit<float> unit = lstm_forward(f, a, Peephole<float>{0.0f, 0.0f, 0.0f}, c);
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

        const u32 first_tile = blockIdx.y * launch.tiles, all_tiles = (p.batch + TILE - 1) / TILE;
        const Group group{{static_cast<u8*>(d.h_prev), u64(p.rows) * stride * sizeof(E), u64(stride) * sizeof(E), d.reverse, T},
                          first_tile * TILE,
                          p.batch,
                          stride * u32(sizeof(E)),
                          min(launch.tiles, all_tiles - first_tile)};
        Exchange exchange(group, memory.fixed(), memory.tiles(), Layout::TILE_BYTES, launch.status, launch.polls);

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
        prefetch(p, d, group, 0, 0, j, inputs);
        u32 item = 0;
        for (u32 step = 0; step < T; ++step) {
            for (u32 tile = 0; tile < group.tiles; ++tile, ++item) {
                const auto sums = memory.sums(item);
                {
                    const auto vector = exchange.wait(tile, step);
                    product.multiply(vector, group.row_bytes, group.sequences(tile), memory.fragments(), sums,
                                     H - min(H, first_unit));
                }
                if (Exchange::CAN_FAIL && exchange.failed()) memory.flags()[item % 2] = 1;
                __syncthreads();
                if (Exchange::CAN_FAIL && memory.flags()[item % 2]) {  // the same for all threads of the block
                    exchange.end();
                    return;
                }
                ForwardResults<G> results[S::CELLS];
#pragma unroll
                for (int e = 0; e < S::CELLS; ++e) {
                    const u32 row = S::row(e);
                    const bool present = row < group.sequences(tile);
                    float start[1] = {0.0f};
                    if (present && real)
                        start[0] = advance(p, d, memory, functions, unit, sums, group.first_sequence + tile * TILE + row, tile,
                                           e, j, inputs[e], results[e]);
                    if (step + 1 < T) publish<E>(exchange, tile, step + 1, row, j, present && j < stride, start);
                }
                exchange.published(tile, step + 1);
                const bool last_tile = tile + 1 == group.tiles;
                if (!last_tile || step + 1 < T)
                    prefetch(p, d, group, last_tile ? step + 1 : step, last_tile ? 0 : tile + 1, j, inputs);
                if (real) store_results(p, d, group, memory, step, tile, j, results);
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
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            const u32 row = S::row(e), b = group.first_sequence + tile * TILE + row;
            ForwardInputs<G>& in = inputs[e];
            in.valid = true;
            in.anew = false;
            if (j >= H || row >= group.sequences(tile)) continue;
            const float* const own = wx + (b * G * H + j);
#pragma unroll
            for (u32 k = 0; k < G; ++k) in.wx[k] = own[k * H];
            if (p.lengths != nullptr) in.valid = t < p.lengths[b];
            if (p.resets != nullptr && step + 1 < p.seq_len) {
                const u32 next = time_of(d.reverse, p.seq_len, step + 1);
                in.anew = is_reset(p.resets, p.batch, next, b) && is_valid(p.lengths, next, b);
            }
        }
    }

    // The step of a pair; gives what the next one starts from.
    template <class Sums>
    static DEVICE float advance(const ForwardParams& p, const ForwardDirection& d, const Layout& memory,
                                const Functions& functions, const ForwardUnit<Cell>& unit, const Sums& sums, u32 b, u32 tile,
                                int e, u32 j, const ForwardInputs<G>& in, ForwardResults<G>& out) {
        out.valid = in.valid;
        out.h_before = memory.state(tile, STATE_H, e);
        out.c = Cell::CELL_STATE ? memory.state(tile, STATE_C, e) : 0.0f;
        out.start = out.h_before;
        if (in.valid) {
            float rh[G];
            sums.sum(S::row(e), S::unit(), rh);
            out.start = to_float(round_to<E>(unit.step(functions, in.wx, rh, out.h_before, out.c, out.saved, out.q)));
        }
        out.h = out.start;
        float c_start = out.c;
        if (in.anew) {
            const u64 own = u64(b) * p.hidden_size + j;
            out.start = load_or_zero<E>(d.h0, own);
            if (Cell::CELL_STATE) c_start = load_or_zero<E>(d.c0, own);
        }
        memory.state(tile, STATE_H, e) = out.start;
        if (Cell::CELL_STATE) memory.state(tile, STATE_C, e) = c_start;
        return out.start;
    }

    // What nobody waits for.
    static DEVICE void store_results(const ForwardParams& p, const ForwardDirection& d, const Group& group,
                                     const Layout& memory, u32 step, u32 tile, u32 j,
                                     const ForwardResults<G> (&results)[S::CELLS]) {
        const u32 t = time_of(d.reverse, p.seq_len, step), H = p.hidden_size, first = group.first_sequence + tile * TILE;
        E* const y = static_cast<E*>(d.y) + t * p.y_time_stride + j;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile)) continue;
            const ForwardResults<G>& r = results[e];
            const float padded = p.hold && !d.reverse ? r.h_before : 0.0f;
            y[(first + S::row(e)) * p.y_batch_stride] = round_to<E>(r.valid ? r.h : padded);
        }
        if (p.save == SAVE_NOTHING) return;
        const u64 before = u64(t) * p.batch;
        float* const gates = static_cast<float*>(d.gates) + before * (G * H);
        const bool keep_start = !Exchange::THROUGH_GLOBAL && step + 1 < p.seq_len;
        E* const h_prev = static_cast<E*>(d.h_prev) + u64(time_of(d.reverse, p.seq_len, step + 1)) * p.rows * p.h_prev_stride;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile)) continue;
            const ForwardResults<G>& r = results[e];
            const u32 b = first + S::row(e), own = b * H + j;
            if (r.valid) {
                float* const to = gates + (b * G * H + j);
#pragma unroll
                for (u32 k = 0; k < G; ++k) to[k * H] = r.saved[k];
                if constexpr (G == 3) (static_cast<float*>(d.q) + before * H)[own] = r.q;
            }
            if (Cell::CELL_STATE) (static_cast<float*>(d.cell_state) + before * H)[own] = r.c;
            if (keep_start) h_prev[b * p.h_prev_stride + j] = round_to<E>(r.start);
        }
    }
};

// A, B and C are this with LocalExchange, ClusterExchange and GridExchange (StagedGridExchange for exact products).
template <class Cell, class Math, template <int, int, class> class X, class S, int FIXED_BYTES, int TILE_BYTES>
DEVICE void persistent_forward(const PersistentForwardParams& p) {
    using Kernel = PersistentForward<Cell, Math, X, S>;
    static_assert(has_shared_bytes<typename Kernel::Layout, FIXED_BYTES, TILE_BYTES>(), "");
    Kernel::run(p);
}
