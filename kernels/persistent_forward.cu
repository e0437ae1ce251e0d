// persistent_forward.cu - all forward steps of a layer in one launch, with R on the chip (families block, cluster, grid).
//
// Math       The cells' equations as in src/cell/*.rs, GRU with the reset after the product; sigmoid gates, tanh (RNN: or relu)
//            states, no peepholes, clips, coupled gates or projection: the rest is for step_forward.cu.
// Reads      wx A [T, B, G*H] (W x of all steps), or with ONE_INPUT x E [T, B] and weight_ih; weight_hh, biases, h0, c0, start_h, start_c,
//            lengths, resets, and vector 0 from h_prev, where
//            begin_forward has put it.
// Writes     y, hn, cn; in training gates (activated) and q, see saved.cuh, cell_state and h_prev of every step. With GridExchange h_prev is also
//            what the blocks exchange h through: slots = T and h_prev_stride = H rounded up to 32 in inference too, all of it
//            0xff before begin_forward.
// Launch     grid (blocks of a group, groups, D). Blocks of a group: ceil(h_prev_stride / UNITS), 1 with LocalExchange; a cluster
//            with ClusterExchange, all blocks of the launch resident together (cooperative) with GridExchange. Groups:
//            ceil(ceil(B / TILE) / tiles). Shared memory: fixed + tiles * what a tile takes, see the catalog.
// Numerics   Products as Math says, sums and c in float; h is rounded to E once and is that from then on. Inference and training give
//            the same bits, as does every run.
// Lengths    A tile of TILE sequences (8 or 16) takes no part in steps at which all of them have ended (in the reverse direction: not begun): no product,
//            no exchange, no wait, no store. What these steps leave is ended.cu's: before the launch for a reverse direction, after it for
//            a forward one.
// Failure    A wait that is never satisfied ends after `patience` with *fault != 0; the launch always ends.
// Backward   persistent_backward.cu or step_backward.cu; h_prev, gates, cell_state and q are as step_forward.cu leaves them.
// Input      With ONE_INPUT a kernel has a loop for problems whose input is one number, with one tile and without lengths and resets: W x
//            is a product of two numbers then, with the bits that it has in memory.
// Oracle     src/backend/reference/ through tests/operator/backends/.
#include "persistent.cuh"

// What a pair reads of a step; on its way while the product is waited for.
template <int G> struct ForwardInputs {
    float wx[G];
    u32 options;  // of these; VALID where there are neither lengths nor resets
    enum { VALID = 1, ANEW = 2 };  // within the sequence's length; the next step starts from the initial state
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

template <class Cell, class Math, template <int, int, class> class X, class S, bool ONE_INPUT> struct PersistentForward {
    using E = typename Math::E;
    static constexpr int G = Cell::GATES;
    using Product = typename ProductOf<Math, G, S::CAPACITY, S>::type;
    using Exchange = X<1, S::CAPACITY * int(sizeof(E)), S>;
    using Ring = InputRing<G, S>;
    enum { STATE_H, STATE_C };
    using Layout = Memory<Product, Exchange, Ring, G, Cell::CELL_STATE ? 2 : 1, S>;
    using Functions = StandardFunctions<!Math::EXACT>;

    const PersistentForwardParams& launch;
    const ForwardParams& p;
    const ForwardDirection& d;
    const Layout memory;
    const u32 j;      // this thread's unit
    const bool real;  // otherwise padding of the vector, if it is inside that
    const Group<S> group;
    const Functions functions;
    Exchange exchange;
    Product product;
    ForwardUnit<Cell> unit;
    ForwardInputs<G> inputs[S::CELLS];
    // Of pair 0 of the group's first tile, in the step that is computed: the first element of its row in a tensor [T, B, H], from which its
    // places in the gates, cell_state and q follow; and y.
    u64 row;
    i64 row_stride;
    Walk y;
    // The next item whose W x is fetched.
    u32 next_step, next_tile;
    // The state of a thread's pair where there is one tile and one pair. Otherwise states are in shared memory.
    float own_h, own_c;
    // Of an input of one number: the weights of this thread's unit, and x of the step, as it stands in memory: it is under way until it is used.
    float weight[G];
    E x[S::CELLS];
    Walk x_walk;

    static DEVICE void run(const PersistentForwardParams& launch) {
        SHARED(u8, shared);
        PersistentForward loop(launch, shared, blockIdx.y * launch.tiles * S::TILE);
        loop.begin();
        // Most problems are plain, and their steps are shorter for it.
        const bool plain = loop.p.lengths == nullptr && loop.p.resets == nullptr && loop.group.tiles == 1;
        bool done;
        if (ONE_INPUT && launch.x != nullptr) done = loop.template steps<ONE_INPUT, ONE_INPUT>();
        else done = TWO_LOOPS && plain ? loop.template steps<TWO_LOOPS>() : loop.template steps<false>();
        if (done) loop.finish();
        loop.exchange.end();
    }

  private:
    static constexpr bool TWO_LOOPS = Exchange::CAN_FAIL || !Math::EXACT;  // registers for a loop for plain problems of its own

    DEVICE PersistentForward(const PersistentForwardParams& launch, u8* shared, u32 first)
        : launch(launch), p(launch.layer), d(p.direction[blockIdx.z]), memory{shared},
          j(blockIdx.x * S::UNITS + S::unit()), real(j < p.hidden_size),
          // With one slot, which only the first step's is, every time has it.
          group{{static_cast<u8*>(d.h_prev), p.slots == 1 ? 0 : p.rows * p.h_prev_stride * u32(sizeof(E)), d.reverse, p.seq_len},
                first,
                p.batch,
                p.hidden_size,
                p.h_prev_stride * u32(sizeof(E)),
                min(launch.tiles, (p.batch + S::TILE - 1) / S::TILE - first / S::TILE)},
          functions{!Cell::CELL_STATE && G == 1 && d.cell.state.kind == ACT_RELU},
          exchange(group, memory.fixed(), memory.tiles(), Layout::TILE_BYTES, {launch.fault, launch.patience}),
          row((u64(d.reverse ? p.seq_len - 1 : 0) * p.batch + first + S::row(0)) * p.hidden_size),
          row_stride(d.reverse ? -i64(p.batch) * p.hidden_size : i64(p.batch) * p.hidden_size),
          y(p.y_time_stride, (first + S::row(0)) * p.y_batch_stride + j, d.reverse, p.seq_len),
          next_step(0), next_tile(0),
          x_walk(launch.x_time_stride, (first + S::row(0)) * launch.x_batch_stride, d.reverse, p.seq_len) {}

    // Element of pair e of a tile in a tensor of states, [B, H].
    DEVICE u64 own(u32 tile, int e) const {
        return u64(group.first_sequence + tile * S::TILE + S::row(e)) * group.hidden_size + j;
    }

    DEVICE void begin() {
        if (threadIdx.x < 2) memory.flags()[threadIdx.x] = 0;
        product.load(ForwardMatrix<E>{static_cast<const E*>(d.weight_hh), p.hidden_size}, blockIdx.x * S::UNITS, group.row_bytes,
                     Exchange::pitch(group), memory.fragments());
        if (real) unit.template load<E>(d, p.hidden_size, j);
        for (u32 tile = 0; tile < group.tiles; ++tile)
#pragma unroll
            for (int e = 0; e < S::CELLS; ++e) {
                const bool inside = real && S::row(e) < group.sequences(tile);
                const void* const start = d.start_h != nullptr ? d.start_h : d.h0;
                memory.state(tile, STATE_H, e) = inside ? load_or_zero<E>(start, own(tile, e)) : 0.0f;
                if (Cell::CELL_STATE) memory.state(tile, STATE_C, e) = inside ? load_start_c<E>(d, own(tile, e)) : 0.0f;
            }
        exchange.begin();
        __syncthreads();
    }

    DEVICE Rounds rounds() const { return memory.rounds(p.lengths, group); }

    // All steps. PLAIN: there is one tile, without lengths and resets. FROM_X: and W x is computed here. False: a wait gave up, which all
    // threads of the block know.
    template <bool PLAIN, bool FROM_X = false> DEVICE bool steps() {
        constexpr bool EARLY = PLAIN && !FROM_X && S::CELLS == 1;  // registers to keep W x in through the product
        if (PLAIN && S::CELLS == 1) {
            own_h = memory.state(0, STATE_H, 0);
            if (Cell::CELL_STATE) own_c = memory.state(0, STATE_C, 0);
        }
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) inputs[e] = {{}, ForwardInputs<G>::VALID};
        if constexpr (!PLAIN) {  // here, so that the loop for plain problems is as without lengths
            rounds().template find<S>(group.first_sequence, p.batch, d.reverse);
            __syncthreads();
        }
        const u32 begin = PLAIN ? 0 : rounds().all().first;
        if constexpr (!PLAIN) {
            next_step = begin;
            next_tile = Rounds::NO_TILE;
            rounds().next(next_step, next_tile);
            row += i64(begin) * row_stride;
            y.skip(begin);
            exchange.skip(begin);
        }
#pragma unroll
        for (u32 i = 0; i < Ring::AHEAD; ++i)
            if (!FROM_X) fetch_wx<PLAIN>(i, begin, i);
        if constexpr (FROM_X) begin_x();
        u32 item = 0;
        for (u32 step = begin; step < (PLAIN ? p.seq_len : rounds().all().last); ++step) {
            for (u32 tile = 0; tile < (PLAIN ? 1 : group.tiles); ++tile) {
                const Span span = PLAIN ? Span{0, p.seq_len} : rounds().of(tile);
                if (!PLAIN && !span.has(step)) continue;
                // Vectors in global memory have slots by time; the others are counted from the tile's first step, whose vector is 0.
                const u32 n = Exchange::THROUGH_GLOBAL ? step : step - span.first;
                const bool more = step + 1 < (Exchange::THROUGH_GLOBAL ? p.seq_len : span.last);
                if constexpr (!PLAIN) fetch_options(step, tile);
                const auto sums = memory.sums(item);
                volatile u32* const failed = memory.flags() + item % 2;  // one that the item before does not read any more
                if (!FROM_X) memory.ring().wait();
                if (EARLY) take_wx(item, 0, real && S::row(0) < group.sequences(0));
                product.multiply(exchange.wait(tile, n, failed), group.sequences(tile), memory.fragments(), sums);
                if constexpr (FROM_X) multiply_x();
                __syncthreads();
                ForwardResults<G> results[S::CELLS];
                const u32 sequences = group.sequences(tile);
                S::each_pair(sequences, [&](int e) {
                    if (!EARLY && !FROM_X) take_wx(item, e, real);
                    advance<PLAIN>(sums, tile, e, results[e]);
                });
                if (!PLAIN && p.resets != nullptr && real) restart(tile, results);
                if (more) publish_starts(tile, n + 1, results);
                exchange.published(tile, n + 1);
                // What nobody waits for.
                if constexpr (FROM_X) {
                    x_walk.next();
                    if (step + 1 < p.seq_len) fetch_x(step + 2 < p.seq_len);
                } else {
                    fetch_wx<PLAIN>(item + Ring::AHEAD, step, Ring::AHEAD);
                }
                if (real) store_results<PLAIN>(step, tile, results);
                // Looked at after the step, which is garbage then, because its results do not have to wait for it so.
                if (Exchange::CAN_FAIL && *failed) return false;
                ++item;
            }
            row += row_stride;
            hide(row);
            y.next();
            exchange.next();
        }
        if (PLAIN && S::CELLS == 1) {
            memory.state(0, STATE_H, 0) = own_h;
            if (Cell::CELL_STATE) memory.state(0, STATE_C, 0) = own_c;
        }
        return true;
    }

    // The final states.
    DEVICE void finish() {
        for (u32 tile = 0; tile < group.tiles; ++tile)
#pragma unroll
            for (int e = 0; e < S::CELLS; ++e) {
                if (!real || S::row(e) >= group.sequences(tile)) continue;
                if (d.hn != nullptr) store<E>(d.hn, own(tile, e), memory.state(tile, STATE_H, e));
                if (Cell::CELL_STATE && d.cn != nullptr) store<E>(d.cn, own(tile, e), memory.state(tile, STATE_C, e));
            }
    }

    // Publishes vector n, what the next step starts from.
    DEVICE void publish_starts(u32 tile, u32 n, const ForwardResults<G> (&results)[S::CELLS]) {
        const u32 sequences = group.sequences(tile);
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            const float start[1] = {real ? results[e].start : 0.0f};
            publish<E>(exchange, tile, n, S::row(e), j, S::row(e) < sequences && j < p.h_prev_stride, start);
        }
    }

    // Begins to fetch W x of the next item, of this number. The walks stand at `step`, which is `ahead` items before it: steps where there is
    // one tile.
    template <bool PLAIN> DEVICE void fetch_wx(u32 item, u32 step, u32 ahead) {
        if (PLAIN) next_step = step + ahead;
        if (next_step < (PLAIN ? p.seq_len : rounds().all().last)) {
            const u32 H = p.hidden_size;
            const u64 next_row = row + i64(PLAIN ? ahead : next_step - step) * row_stride + (PLAIN ? 0 : next_tile * (S::TILE * H));
            const float* const from = static_cast<const float*>(d.wx) + (next_row * G + j);
            if (real)
                S::each_pair(group.sequences(PLAIN ? 0 : next_tile), [&](int e) {
#pragma unroll
                    for (u32 k = 0; k < G; ++k) memory.ring().copy(item, e, k, from + (e * S::ROW_STEP * G + k) * H);
                });
            if constexpr (!PLAIN) rounds().next(next_step, next_tile);
        }
        memory.ring().commit();
    }
    DEVICE void begin_x() {
#pragma unroll
        for (u32 k = 0; k < G; ++k) weight[k] = real ? load<E>(launch.weight_ih[blockIdx.z], k * p.hidden_size + j) : 0.0f;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) x[e] = zero<E>();
        fetch_x(p.seq_len > 1);
    }
    // Fetches x of the step that `x_walk` stands at, and brings that of the next one, where there is a further one, nearer.
    DEVICE void fetch_x(bool further) {
        const E* const from = x_walk.in<E>(launch.x, 0);
        S::each_pair(group.sequences(0), [&](int e) {
            const E* const at = from + e * S::ROW_STEP * launch.x_batch_stride;
            x[e] = *at;
            if (further) prefetch_l2(at + x_walk.stride);
        });
    }
    DEVICE void multiply_x() {
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e)
#pragma unroll
            for (u32 k = 0; k < G; ++k)
                inputs[e].wx[k] = fused_multiply_add(weight[k], to_float(x[e]), 0.0f);
    }
    // W x of a pair of this item, once it is there; zero where nothing was copied.
    DEVICE void take_wx(u32 item, int e, bool inside) {
        if (inside)
#pragma unroll
            for (u32 k = 0; k < G; ++k) inputs[e].wx[k] = *memory.ring().place(item, e, k);
    }

    // Whether the step of an item counts, and whether the one after starts from the initial state.
    DEVICE void fetch_options(u32 step, u32 tile) {
        const u32 t = time_of(d.reverse, p.seq_len, step), next = time_of(d.reverse, p.seq_len, step + 1);
        const bool more = p.resets != nullptr && step + 1 < p.seq_len;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            const u32 b = group.first_sequence + tile * S::TILE + S::row(e);
            if (!real || S::row(e) >= group.sequences(tile)) continue;
            const bool anew = more && is_reset(p.resets, p.batch, next, b) && is_valid(p.lengths, next, b);
            inputs[e].options = (is_valid(p.lengths, t, b) ? ForwardInputs<G>::VALID : 0) | (anew ? ForwardInputs<G>::ANEW : 0);
        }
    }

    // The step of a pair. What padding computes is garbage that nobody uses.
    template <bool PLAIN, class Sums> DEVICE void advance(const Sums& sums, u32 tile, int e, ForwardResults<G>& out) {
        const ForwardInputs<G>& in = inputs[e];
        float rh[G];
        sums.sum(S::row(e), S::unit(), rh);
        float& state_h = PLAIN && S::CELLS == 1 ? own_h : memory.state(tile, STATE_H, e);
        float& state_c = PLAIN && S::CELLS == 1 ? own_c : memory.state(tile, Cell::CELL_STATE ? STATE_C : STATE_H, e);
        const float h_before = state_h;
        float c = 0.0f;
        if constexpr (Cell::CELL_STATE) c = state_c;
        out.c = c;
        const float h = to_float(round_to<E>(unit.step(functions, in.wx, rh, h_before, c, out.saved, out.q)));
        out.valid = PLAIN || (in.options & in.VALID);
        out.y = out.valid ? h : p.hold && !d.reverse ? h_before : 0.0f;
        out.start = out.valid ? h : h_before;
        state_h = out.start;
        if constexpr (Cell::CELL_STATE) state_c = out.c = out.valid ? c : out.c;
    }

    // Where the next step starts from the initial state, puts that in the place of the state.
    DEVICE void restart(u32 tile, ForwardResults<G> (&results)[S::CELLS]) {
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile) || !(inputs[e].options & ForwardInputs<G>::ANEW)) continue;
            results[e].start = memory.state(tile, STATE_H, e) = load_or_zero<E>(d.h0, own(tile, e));
            if (Cell::CELL_STATE) memory.state(tile, STATE_C, e) = load_or_zero<E>(d.c0, own(tile, e));
        }
    }

    template <bool PLAIN> DEVICE void store_results(u32 step, u32 tile, const ForwardResults<G> (&results)[S::CELLS]) {
        const u32 H = p.hidden_size, sequences = group.sequences(tile);
        E* const to_y = y.in<E>(d.y, tile * S::TILE * p.y_batch_stride);
        S::each_pair(sequences, [&](int e) { to_y[e * S::ROW_STEP * p.y_batch_stride] = round_to<E>(results[e].y); });
        if (p.save == SAVE_NOTHING) return;
        const u64 own_row = row + tile * (S::TILE * H);
        float* const to_gates = static_cast<float*>(d.gates) + (own_row * G + j);
        const u64 own_unit = own_row + j;
        float* const to_saved = static_cast<float*>(G == 3 ? d.q : d.cell_state) + own_unit;
        S::each_pair(sequences, [&](int e) {
            const ForwardResults<G>& r = results[e];
            if (PLAIN || r.valid) {
                if constexpr (PACKED<Cell, E>) {
                    static_cast<uint2*>(d.gates)[own_unit + e * S::ROW_STEP * H] = SavedPiece<Cell>::pack(r.saved, r.q);
                } else {
#pragma unroll
                    for (u32 k = 0; k < G; ++k) to_gates[(e * S::ROW_STEP * G + k) * H] = r.saved[k];
                    if constexpr (G == 3) to_saved[e * S::ROW_STEP * H] = r.q;
                }
            }
            if constexpr (Cell::CELL_STATE) to_saved[e * S::ROW_STEP * H] = r.c;
        });
        if (Exchange::THROUGH_GLOBAL || step + 1 == p.seq_len) return;
        const u64 next = u64(time_of(d.reverse, p.seq_len, step + 1)) * p.rows + group.first_sequence + tile * S::TILE + S::row(0);
        E* const to_h_prev = static_cast<E*>(d.h_prev) + (next * p.h_prev_stride + j);
        S::each_pair(sequences, [&](int e) { to_h_prev[e * S::ROW_STEP * p.h_prev_stride] = round_to<E>(results[e].start); });
    }
};

// A, B and C are this with LocalExchange, ClusterExchange and GridExchange (StagedGridExchange for exact products).
template <class Cell, class Math, template <int, int, class> class X, class S, int FIXED_BYTES, int TILE_BYTES, bool ONE_INPUT>
DEVICE void persistent_forward(const PersistentForwardParams& p) {
    using Kernel = PersistentForward<Cell, Math, X, S, ONE_INPUT>;
    static_assert(has_shared_bytes<typename Kernel::Layout, FIXED_BYTES, TILE_BYTES>(), "");
    Kernel::run(p);
}
