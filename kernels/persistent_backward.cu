// persistent_backward.cu - all backward steps of a layer in one launch, with R^T on the chip (families block, cluster, grid).
//
// Math       The cells' derivatives as in src/cell/*.rs, for the options of persistent_forward.cu. A step computes the gradients of
//            its gates from dh, and then dh of the step before as R^T dgates plus what needs no product; a block computes dh of its
//            own units, for which it needs the dgates of all units: those are what the blocks exchange.
// Reads      What forward saved (activated gates and q, see saved.cuh, cell_state, h_prev), dy, c0, start_c, lengths, resets, weight_hh; dh and dc, where
//            begin_backward has put the gradients of the final states.
// Writes     dgates of every step, zero past a sequence's length; dh, dc, dh_reset, dc_reset as finish_backward expects them. With
//            GridExchange also `exchange` E [T, B, exchange_stride], exchange_stride = G * (H rounded up to 32), 0xff before.
// Launch     As persistent_forward.cu, with ceil((H rounded up to 32) / UNITS) blocks of a group.
// Numerics   Products as Math says, of dgates rounded to E; everything else in float. The same bits every run.
// Lengths    As persistent_forward.cu; ended.cu comes before the launch.
// Failure    As persistent_forward.cu.
// Oracle     src/backend/reference/ through tests/operator/backends/.
#include "persistent.cuh"

// What a pair reads of a step and computes from it before the gradients arrive.
template <class E> struct BackwardInputs {
    E dy;         // as it stands in memory: it is under way until it is used
    u32 options;  // of these; VALID where there are neither lengths nor resets
    enum { VALID = 1, ANEW = 2, ANEW_AFTER = 4 };  // within the length; the step, or the one after, is reset; the first is not
    DEVICE bool valid() const { return options & VALID; }
    DEVICE bool anew() const { return options & ANEW; }
    DEVICE bool anew_after() const { return options & ANEW_AFTER; }
};

// What a pair's step gave: gradients of gates, and (GRU) of n.
template <int G> struct BackwardResults {
    float da[G], da_n;
};

// What forward saved of a step for a unit, and the derivative in two parts: `prepare` what follows from that alone, `step` the rest.
// A step gives gradients of the gates, in the order of the weights' rows, and (GRU) of n; dh becomes the part of dh of the step before
// that needs no product, dc that of c of the step before.
template <class Cell> struct BackwardUnit;

template <> struct BackwardUnit<Rnn> {
    enum { SAVED, WIDTH };
    float factor;
    template <class F> DEVICE void prepare(const F& f, const float (&saved)[WIDTH]) { factor = rnn_factor(f, saved[SAVED]); }
    DEVICE void step(float& dh, float&, float (&da)[1], float&) const {
        da[0] = dh * factor;
        dh = 0.0f;
    }
};

template <> struct BackwardUnit<Lstm> {
    enum { SAVED, C_PREV = 4, C, WIDTH };
    LstmFactors<float> factors;
    template <class F> DEVICE void prepare(const F& f, const float (&saved)[WIDTH]) {
        const float gates[4] = {saved[0], saved[1], saved[2], saved[3]};
        factors = lstm_factors(f, gates, saved[C_PREV], saved[C]);
    }
    DEVICE void step(float& dh, float& dc, float (&da)[4], float&) const {
        lstm_backward(factors, NoPeepholes<float>{}, dh, dc, da);
        dh = 0.0f;
    }
};

template <> struct BackwardUnit<Gru> {
    enum { SAVED, Q = 3, H_PREV, WIDTH };
    GruGradient<float> factors;
    float r, factor_r;
    template <class F> DEVICE void prepare(const F& f, const float (&saved)[WIDTH]) {
        float slope_r;
        f.saved_gate(saved[Gru::R], r, slope_r);
        factor_r = saved[Q] * slope_r;
        factors = gru_factors(f, saved[Gru::Z], saved[Gru::N], saved[H_PREV]);
    }
    DEVICE void step(float& dh, float&, float (&da)[3], float& da_n) const {
        const GruGradient<float> g = gru_backward(factors, dh);
        da_n = g.da_n;
        da[Gru::R] = g.da_n * factor_r;
        da[Gru::Z] = g.da_z;
        da[Gru::N] = r * g.da_n;  // what R_n and b_hn get
        dh = g.dh_prev;
    }
};

template <class Cell, class Math, template <int, int, class> class X, class S> struct PersistentBackward {
    using E = typename Math::E;
    static constexpr int G = Cell::GATES, SLOTS = Cell::GRADIENT_SLOTS;
    using Product = typename ProductOf<Math, 1, G * S::CAPACITY, S>::type;
    using Exchange = X<0, G * S::CAPACITY * int(sizeof(E)), S>;
    using Unit = BackwardUnit<Cell>;
    // Whether the first four numbers that forward saved, gates and (GRU) q, come in a piece of two words.
    static constexpr bool PIECE = PACKED<Cell, E>;
    static constexpr u32 PIECE_NUMBERS = PIECE ? 4 : 0, PIECE_WORDS = PIECE ? 2 : 0;
    using Ring = InputRing<int(Unit::WIDTH - PIECE_NUMBERS + PIECE_WORDS), S>;
    enum { STATE_DH, STATE_DC };
    using Layout = Memory<Product, Exchange, Ring, 1, Cell::CELL_STATE ? 2 : 1, S>;
    using Functions = StandardFunctions<!Math::EXACT>;

    const PersistentBackwardParams& launch;
    const BackwardParams& p;
    const BackwardDirection& d;
    const Layout memory;
    const u32 j;       // this thread's unit
    const bool real;   // otherwise padding of the vector, if it is inside that
    const u32 padded;  // hidden_size, whole lines
    const Group<S> group;
    const Functions functions;
    Exchange exchange;
    Product product;
    BackwardInputs<E> inputs[S::CELLS];
    // Of pair 0 of the group's first tile, in the step that is computed: the first element of its row in a tensor [T, B, H], from which its
    // places in the gates, their gradients, cell_state and q follow; and dy.
    u64 row;
    i64 row_stride;
    Walk dy;
    // The next item whose saved values are fetched. h_prev is that of the GRU.
    u32 next_n, next_tile;
    Walk next_h_prev;
    // The gradients of a thread's pair, and c of its step, where there is one tile and one pair. Otherwise they are in shared memory.
    float own_dh, own_dc, own_c;

    static DEVICE void run(const PersistentBackwardParams& launch) {
        SHARED(u8, shared);
        PersistentBackward loop(launch, shared, blockIdx.y * launch.tiles * S::TILE);
        loop.begin();
        // Most problems are plain, and their steps are shorter for it.
        const bool plain = loop.p.lengths == nullptr && loop.p.resets == nullptr && loop.group.tiles == 1;
        if (TWO_LOOPS && plain) loop.template steps<TWO_LOOPS>();
        else loop.template steps<false>();
        loop.exchange.end();
    }

  private:
    // What there are registers for: a loop for plain problems of its own, which keeps what is prepared through the product; in it the
    // pair's own gradients.
    static constexpr bool TWO_LOOPS = (Exchange::CAN_FAIL || !Math::EXACT) && S::SHARED_BLOCKS <= 6;
    static constexpr bool SINGLE = S::CELLS == 1 && S::THREADS <= 256, NEARER = S::THREADS <= 256 || S::SHARED_BLOCKS > 0 || G == 1;

    DEVICE PersistentBackward(const PersistentBackwardParams& launch, u8* shared, u32 first)
        : launch(launch), p(launch.layer), d(p.direction[blockIdx.z]), memory{shared},
          j(blockIdx.x * S::UNITS + S::unit()), real(j < p.hidden_size), padded((p.hidden_size + 31) / 32 * 32),
          // Vector n is that of step T-1-n.
          group{{static_cast<u8*>(launch.exchange[blockIdx.z]), p.batch * padded * G * u32(sizeof(E)), 0, p.seq_len},
                first,
                p.batch,
                p.hidden_size,
                padded * G * u32(sizeof(E)),
                min(launch.tiles, (p.batch + S::TILE - 1) / S::TILE - first / S::TILE)},
          functions{!Cell::CELL_STATE && G == 1 && d.cell.state.kind == ACT_RELU},
          exchange(group, memory.fixed(), memory.tiles(), Layout::TILE_BYTES, {launch.fault, launch.patience}),
          // Steps go backwards, and so do times, unless the direction does.
          row((u64(d.reverse ? 0 : p.seq_len - 1) * p.batch + first + S::row(0)) * p.hidden_size),
          row_stride(d.reverse ? i64(p.batch) * p.hidden_size : -i64(p.batch) * p.hidden_size),
          dy(p.dy_time_stride, (first + S::row(0)) * p.dy_batch_stride + j, !d.reverse, p.seq_len),
          next_n(0), next_tile(0),
          next_h_prev(u64(p.rows) * p.h_prev_stride, u64(first + S::row(0)) * p.h_prev_stride + j, !d.reverse,
                      p.seq_len) {}

    // Element of pair e of a tile in a tensor of states, [B, H].
    DEVICE u64 own(u32 tile, int e) const {
        return u64(group.first_sequence + tile * S::TILE + S::row(e)) * group.hidden_size + j;
    }

    DEVICE void begin() {
        if (threadIdx.x < 2) memory.flags()[threadIdx.x] = 0;
        product.load(BackwardMatrix<E, G>{static_cast<const E*>(d.weight_hh), p.hidden_size}, blockIdx.x * S::UNITS, group.row_bytes,
                     Exchange::pitch(group), memory.fragments());
        for (u32 tile = 0; tile < group.tiles; ++tile)
#pragma unroll
            for (int e = 0; e < S::CELLS; ++e) {
                const bool inside = real && S::row(e) < group.sequences(tile);
                memory.state(tile, STATE_DH, e) = inside ? static_cast<const float*>(d.dh)[own(tile, e)] : 0.0f;
                if (Cell::CELL_STATE)
                    memory.state(tile, STATE_DC, e) = inside ? static_cast<const float*>(d.dc)[own(tile, e)] : 0.0f;
            }
        exchange.begin();
        __syncthreads();
    }

    DEVICE Rounds rounds() const { return memory.rounds(p.lengths, group); }

    // All steps. PLAIN: there is one tile, without lengths and resets. Ends early where a wait gave up, which all threads of the block
    // know.
    template <bool PLAIN> DEVICE void steps() {
        constexpr bool EARLY = PLAIN && S::CELLS == 1;  // registers to keep what is prepared in through the product
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            inputs[e] = {zero<E>(), BackwardInputs<E>::VALID};
        }
        own_dh = memory.state(0, STATE_DH, 0);
        own_dc = memory.state(0, Cell::CELL_STATE ? STATE_DC : STATE_DH, 0);
        if constexpr (PLAIN && SINGLE && Cell::CELL_STATE) {
            const float* const c = static_cast<const float*>(d.cell_state) + row + j;
            own_c = real && S::row(0) < group.sequences(0) ? *c : 0.0f;
        }
        if constexpr (!PLAIN) {  // here, so that the loop for plain problems is as without lengths
            rounds().template find<S>(group.first_sequence, p.batch, !d.reverse);
            __syncthreads();
        }
        const u32 begin = PLAIN ? 0 : rounds().all().first;
        if constexpr (!PLAIN) {
            next_n = begin;
            next_tile = Rounds::NO_TILE;
            rounds().next(next_n, next_tile);
            row += i64(begin) * row_stride;
            if (G == 3) next_h_prev.skip(begin);
            exchange.skip(begin);
        }
#pragma unroll
        for (u32 i = 0; i < Ring::AHEAD; ++i) fetch_saved<PLAIN>(i, begin, i);
        if (PLAIN) fetch_dy<PLAIN>(0, p.seq_len > 1, 0);
        u32 item = 0;
        // Round n computes dh of step T-1-n, with the product of the vector before, and publishes vector n; the one after a tile's last
        // step writes dh.
        for (u32 n = begin; n <= (PLAIN ? p.seq_len : rounds().all().last); ++n) {
            for (u32 tile = 0; tile < (PLAIN ? 1 : group.tiles); ++tile) {
                const Span span = PLAIN ? Span{0, p.seq_len} : rounds().of(tile);
                if (!PLAIN && n != span.last && !span.has(n)) continue;
                // Vectors in global memory have slots by time; the others are counted from the tile's first round.
                const u32 vector = Exchange::THROUGH_GLOBAL ? n : n - span.first;
                if constexpr (!PLAIN) {
                    if (n != span.last) {
                        fetch_dy<PLAIN>(tile, n + 1 < p.seq_len, n);
                        fetch_options(n, tile);
                    }
                }
                const auto sums = memory.sums(item);
                volatile u32* const failed = memory.flags() + item % 2;  // one that the item before does not read any more
                memory.ring().wait();
                Unit unit{};
                if (EARLY && n < p.seq_len) unit = prepare<PLAIN>(tile, item, 0, real && S::row(0) < group.sequences(0));
                if (n > span.first)
                    product.multiply(exchange.wait(tile, vector - 1, failed), group.sequences(tile), memory.fragments(), sums);
                __syncthreads();
                const u32 sequences = group.sequences(tile);
                if (n == span.last) {
                    if (Exchange::CAN_FAIL && *failed) return;
                    if (real) finish<PLAIN>(sums, tile, n > span.first);
                    if (!PLAIN || Exchange::SUM_BUFFERS == 1) __syncthreads();  // the next item's sums take the place of these
                    continue;
                }
                BackwardResults<G> results[S::CELLS];
                if (!PLAIN && p.resets != nullptr && n > span.first && real) restart(sums, tile);
                S::each_pair(sequences, [&](int e) {
                    step<PLAIN>(EARLY ? unit : prepare<PLAIN>(tile, item, e, real), sums, n > span.first, tile, e, results[e]);
                });
#pragma unroll
                for (int e = 0; e < S::CELLS; ++e) {
                    float da[G];
#pragma unroll
                    for (int k = 0; k < G; ++k) da[k] = real ? results[e].da[k] : 0.0f;
                    publish<E>(exchange, tile, vector, S::row(e), j, S::row(e) < sequences && j < padded, da);
                }
                exchange.published(tile, vector);
                // What nobody waits for.
                fetch_saved<PLAIN>(item + Ring::AHEAD, n, Ring::AHEAD);
                if constexpr (PLAIN) {
                    dy.next();
                    if (n + 1 < p.seq_len) fetch_dy<PLAIN>(0, n + 2 < p.seq_len, n + 1);
                }
                if (real) store_gradients(PLAIN ? 0 : tile, results);
                // Looked at after the step, which is garbage then, because its results do not have to wait for it so.
                if (Exchange::CAN_FAIL && *failed) return;
                ++item;
            }
            row += row_stride;
            hide(row);
            exchange.next();
        }
    }

    // Begins to fetch what forward saved of the next item, of this number. `n`, of the row that the walks stand at, is `ahead` items
    // before it, which are rounds where there is one tile.
    template <bool PLAIN> DEVICE void fetch_saved(u32 item, u32 n, u32 ahead) {
        if (PLAIN) next_n = n + ahead;
        if (next_n < (PLAIN ? p.seq_len : rounds().all().last)) {
            const u32 H = p.hidden_size, tile = PLAIN ? 0 : next_tile;
            const u64 next_row = row + i64(PLAIN ? ahead : next_n - n) * row_stride + tile * (S::TILE * H);
            const float* const from = static_cast<const float*>(d.gates) + (next_row * G + j);
            const uint2* const pieces = static_cast<const uint2*>(d.gates) + (next_row + j);
            const float* const state = static_cast<const float*>(G == 3 ? d.q : d.cell_state) + (next_row + j);
            const E* const h_prev = next_h_prev.in<E>(d.h_prev, tile * (S::TILE * p.h_prev_stride));
            const bool first = next_n + 1 == p.seq_len;  // of the steps
            if (real)
                S::each_pair(group.sequences(tile), [&](int e) {
                    if constexpr (PIECE) {
                        memory.ring().copy_piece(item, e, 0, pieces + e * S::ROW_STEP * H);
                    } else {
#pragma unroll
                        for (u32 k = 0; k < G; ++k) fetch(item, e, Unit::SAVED + k, from + (e * S::ROW_STEP * G + k) * H);
                    }
                    const float* const own_state = state + e * S::ROW_STEP * H;
                    if constexpr (Cell::CELL_STATE) {
                        if (!(PLAIN && SINGLE)) fetch(item, e, Unit::C, own_state);
                        if (!first) fetch(item, e, Unit::C_PREV, own_state + row_stride);
                        else *place(item, e, Unit::C_PREV) = load_start_c<E>(d, own(tile, e));
                    }
                    if constexpr (G == 3) {
                        if (!PIECE) fetch(item, e, Unit::Q, own_state);
                        fetch_element(item, e, Unit::H_PREV, h_prev + e * S::ROW_STEP * p.h_prev_stride);
                    }
                });
            const u32 fetched = next_n;
            if constexpr (!PLAIN) rounds().next(next_n, next_tile);
            if (G == 3 && (PLAIN || next_n != fetched)) next_h_prev.next();
        }
        memory.ring().commit();
    }
    // Where number i of what a step reads is in the ring, unless it is in the piece.
    static DEVICE constexpr u32 ring_place(u32 i) { return i - PIECE_NUMBERS + PIECE_WORDS; }
    DEVICE float* place(u32 item, int e, u32 i) const { return memory.ring().place(item, e, ring_place(i)); }
    DEVICE void fetch(u32 item, int e, u32 i, const float* from) {
        memory.ring().copy(item, e, ring_place(i), from);
    }
    // The same of an element: the word that it is in, of a tensor whose rows begin with words.
    DEVICE void fetch_element(u32 item, int e, u32 i, const E* from) {
        fetch(item, e, i, reinterpret_cast<const float*>(from - (sizeof(E) == 2 ? j % 2 : 0)));
    }

    // Fetches dy of round n, which `dy` stands at where there is one tile, and brings that of the next one, where there is a further one, nearer.
    template <bool PLAIN> DEVICE void fetch_dy(u32 tile, bool further, u32 n) {
        if (d.dy == nullptr || !real) return;
        const E* from;
        i64 stride;
        if constexpr (PLAIN) {
            from = dy.in<E>(d.dy, 0);
            stride = dy.stride;
        } else {  // not by increment, for which there are no registers
            const u32 t = time_of(d.reverse, p.seq_len, p.seq_len - 1 - n), b = group.first_sequence + tile * S::TILE + S::row(0);
            from = static_cast<const E*>(d.dy) + (t * p.dy_time_stride + b * p.dy_batch_stride + j);
            stride = d.reverse ? i64(p.dy_time_stride) : -i64(p.dy_time_stride);
        }
        S::each_pair(group.sequences(tile), [&](int e) {
            const E* const at = from + e * S::ROW_STEP * p.dy_batch_stride;
            inputs[e].dy = *at;
            if (further && NEARER) prefetch_l2(at + stride);
        });
    }

    // Whether the step of a round counts, and which steps start from the initial state.
    DEVICE void fetch_options(u32 n, u32 tile) {
        const u32 step = p.seq_len - 1 - n, t = time_of(d.reverse, p.seq_len, step);
        const u32 after = n > 0 ? time_of(d.reverse, p.seq_len, step + 1) : t;
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            BackwardInputs<E>& in = inputs[e];
            const u32 b = group.first_sequence + tile * S::TILE + S::row(e);
            if (!real || S::row(e) >= group.sequences(tile)) continue;
            const bool anew_after = n > 0 && is_reset(p.resets, p.batch, after, b) && is_valid(p.lengths, after, b);
            in.options = (is_valid(p.lengths, t, b) ? in.VALID : 0) | (anew_after ? in.ANEW_AFTER : 0) |
                         (step > 0 && starts_anew(p.lengths, p.resets, p.batch, step, t, b) ? in.ANEW : 0);
        }
    }

    // What can be computed of a pair's step while its gradients are under way. Where nothing was copied it is garbage that nobody uses; exact
    // functions, which branch on it, get zeros.
    template <bool PLAIN> DEVICE Unit prepare(u32 tile, u32 item, int e, bool copied) {
        const bool inside = Math::EXACT ? copied : threadIdx.x < Ring::PAIRS;
        float saved[Unit::WIDTH];
#pragma unroll
        for (u32 i = PIECE_NUMBERS; i < Unit::WIDTH; ++i) saved[i] = inside ? *place(item, e, i) : 0.0f;
        if constexpr (PIECE) {
            static_assert(Unit::WIDTH > 3, "gates, and q after three of them");
            SavedPiece<Cell>::unpack(inside ? *memory.ring().piece(item, e, 0) : uint2{0, 0}, saved, saved[3]);
        }
        if constexpr (G == 3 && sizeof(E) == 2) {
            const u32 word = __float_as_uint(saved[Unit::H_PREV]);
            saved[Unit::H_PREV] = j % 2 ? unpack_high<E>(word) : unpack_low<E>(word);
        }
        if constexpr (Cell::CELL_STATE) {
            if constexpr (PLAIN && SINGLE) {
                saved[Unit::C] = own_c;
                own_c = saved[Unit::C_PREV];
            } else if (!PLAIN && inputs[e].anew() && real && S::row(e) < group.sequences(tile)) {
                saved[Unit::C_PREV] = load_or_zero<E>(d.c0, own(tile, e));
            }
        }
        Unit unit;
        unit.prepare(functions, saved);
        return unit;
    }

    // Gradient of the output that pair e's step before left behind, dy aside, as far as the state holds it and the product.
    template <class Sums> DEVICE float carried(const Sums& sums, float state, int e) const {
        float product[1];
        sums.sum(S::row(e), S::unit(), product);
        return state + product[0];
    }

    // Where the step after started from the initial state, what was carried belongs to that.
    template <class Sums> DEVICE void restart(const Sums& sums, u32 tile) {
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile) || !inputs[e].anew_after()) continue;
            static_cast<float*>(d.dh_reset)[own(tile, e)] += carried(sums, memory.state(tile, STATE_DH, e), e);
            if (Cell::CELL_STATE) static_cast<float*>(d.dc_reset)[own(tile, e)] += memory.state(tile, STATE_DC, e);
        }
    }

    // The step of a pair. What padding computes is garbage that nobody uses.
    template <bool PLAIN, class Sums>
    DEVICE void step(const Unit& unit, const Sums& sums, bool multiplied, u32 tile, int e, BackwardResults<G>& out) {
        const BackwardInputs<E>& in = inputs[e];
        float& state_dh = PLAIN && SINGLE ? own_dh : memory.state(tile, STATE_DH, e);
        float& state_dc = PLAIN && SINGLE ? own_dc : memory.state(tile, Cell::CELL_STATE ? STATE_DC : STATE_DH, e);
        float dh = multiplied ? carried(sums, state_dh, e) : state_dh;
        float dc = 0.0f;
        if constexpr (Cell::CELL_STATE) dc = !PLAIN && in.anew_after() ? 0.0f : state_dc;
        // Past the length y is zero, or in the forward direction under `hold` the last valid output again.
        const bool counts = PLAIN || in.valid() || (p.hold && !d.reverse);
        dh = (!PLAIN && in.anew_after() ? 0.0f : dh) + (counts ? to_float(in.dy) : 0.0f);
        float dh_direct = dh, dc_before = dc;
        unit.step(dh_direct, dc_before, out.da, out.da_n);
        const bool valid = PLAIN || in.valid();
#pragma unroll
        for (int k = 0; k < G; ++k) out.da[k] = valid ? out.da[k] : 0.0f;
        if constexpr (G == 3) out.da_n = valid ? out.da_n : 0.0f;
        state_dh = valid ? dh_direct : dh;
        if constexpr (Cell::CELL_STATE) state_dc = valid ? dc_before : dc;
    }

    // What goes to the initial state.
    template <bool PLAIN, class Sums> DEVICE void finish(const Sums& sums, u32 tile, bool multiplied) {
#pragma unroll
        for (int e = 0; e < S::CELLS; ++e) {
            if (S::row(e) >= group.sequences(tile)) continue;
            const float dh = PLAIN && SINGLE ? own_dh : memory.state(tile, STATE_DH, e);
            static_cast<float*>(d.dh)[own(tile, e)] = multiplied ? carried(sums, dh, e) : dh;
            if (Cell::CELL_STATE) static_cast<float*>(d.dc)[own(tile, e)] = PLAIN && SINGLE ? own_dc : memory.state(tile, STATE_DC, e);
        }
    }

    DEVICE void store_gradients(u32 tile, const BackwardResults<G> (&results)[S::CELLS]) {
        const u32 H = p.hidden_size;
        E* const to = static_cast<E*>(d.dgates) + ((row + tile * (S::TILE * H)) * SLOTS + j);
        S::each_pair(group.sequences(tile), [&](int e) {
            const BackwardResults<G>& r = results[e];
            const u32 row = e * S::ROW_STEP * SLOTS;
            if constexpr (SLOTS == G) {
#pragma unroll
                for (u32 k = 0; k < G; ++k) to[(row + k) * H] = round_to<E>(r.da[k]);
            } else {
                to[(row + Gru::SLOT_N) * H] = round_to<E>(r.da_n);
                to[(row + Gru::SLOT_R) * H] = round_to<E>(r.da[Gru::R]);
                to[(row + Gru::SLOT_Z) * H] = round_to<E>(r.da[Gru::Z]);
                to[(row + Gru::SLOT_Q) * H] = round_to<E>(r.da[Gru::N]);
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
