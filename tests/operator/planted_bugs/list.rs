//! The planted bugs. `find` must stand in `file` exactly once; a bug is that text replaced.

/// A bug to plant.
pub struct PlantedBug {
    /// Below `kernels/`.
    pub file: &'static str,
    /// What it does wrong.
    pub what: &'static str,
    pub find: &'static str,
    pub replace: &'static str,
    /// Where it is looked for.
    pub place: Place,
    /// Why nothing can show it here, where that is so.
    pub survives: Option<&'static str>,
}

/// The grid family where groups have more than 8 sequences, so that tiles of 16 are computed.
pub const WIDE: &str = "wide grid";

/// What is run to find a bug: element type, the family of kernels that compute the time loop, or [`WIDE`], or `operations` for the suite of the
/// operations of models, and whether the kernels are built with AddressSanitizer, which alone sees reads beyond the end whose values
/// nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub dtype: &'static str,
    pub family: &'static str,
    pub sanitized: bool,
}

const fn bug(file: &'static str, what: &'static str, find: &'static str, replace: &'static str) -> PlantedBug {
    let place = Place { dtype: "f32", family: "step", sanitized: false };
    PlantedBug { file, what, find, replace, place, survives: None }
}

impl PlantedBug {
    const fn f16(mut self) -> Self {
        self.place.dtype = "f16";
        self
    }

    const fn bf16(mut self) -> Self {
        self.place.dtype = "bf16";
        self
    }

    const fn family(mut self, family: &'static str) -> Self {
        self.place.family = family;
        self
    }

    const fn sanitized(mut self) -> Self {
        self.place.sanitized = true;
        self
    }
}

pub const PLANTED_BUGS: &[PlantedBug] = &[
    // Products.
    bug(
        "gemm.cu",
        "no barrier between loading a tile and multiplying it",
        "                __syncthreads();\n                tile.template multiply<Math>(a_tile, b_tile);",
        "                tile.template multiply<Math>(a_tile, b_tile);",
    ),
    bug(
        "gemm.cu",
        "no barrier between multiplying a tile and loading the next",
        "                tile.template multiply<Math>(a_tile, b_tile);\n                __syncthreads();",
        "                tile.template multiply<Math>(a_tile, b_tile);",
    ),
    bug(
        "gemm.cu",
        "one row too many at the edge",
        "bool inside = first + r < rows &&",
        "bool inside = first + r <= rows &&",
    )
    .sanitized(),
    bug("gemm.cu", "the last k is left out", "k0 + k < k_end;", "k0 + k + 1 < k_end;"),
    bug("gemm.cu", "one k too many", "k0 + k < k_end;", "k0 + k <= k_end;"),
    bug(
        "gemm.cu",
        "lengths are ignored in da^T x",
        "inside = outer / from.inner < lengths[outer % from.inner];",
        "inside = true;",
    ),
    bug(
        "gemm.cu",
        "a step too many of each sequence in da^T x",
        "inside = outer / from.inner < lengths[outer % from.inner];",
        "inside = outer / from.inner <= lengths[outer % from.inner];",
    ),
    bug(
        "gemm.cu",
        "the last row of the product is not written",
        "if (m >= problem.m || n",
        "if (m + 1 >= problem.m || n",
    ),
    bug(
        "gemm.cu",
        "the accumulators start with a one",
        "acc[i / RN][i % RN] = V(0);",
        "acc[i / RN][i % RN] = V(i == 0);",
    ),
    bug(
        "gemm.cu",
        "accumulators are set where they are to be added to",
        "store_or_add<V>(c, at, product, piece.accumulates());",
        "store_or_add<V>(c, at, product, false);",
    ),
    bug(
        "gemm.cu",
        "elements are set where they are to be added to",
        "store_or_add<E>(c, at, product, piece.accumulates());",
        "store_or_add<E>(c, at, product, false);",
    ),
    bug("gemm.cu", "only the first term of a sum of products", "i < problem.terms;", "i < 1;"),
    bug(
        "gemm.cuh",
        "the second direction reads the first one's matrices",
        "p.problem[p.problems > 1 ? product : 0]",
        "p.problem[0]",
    ),
    bug("gemm.cuh", "every piece of a sum has all of it", "u64(tiles) * piece / p.splits", "u64(tiles) * (piece > split)")
        .family("operations"),
    bug("gemm.cuh", "rows of the next group begin where the last one did", "entered ? step_entering : step", "step"),
    bug("gemm.cuh", "all products of the first b", "(term.b.data) + product * p.b_apart", "(term.b.data)").family("operations"),
    bug(
        "gemm.cu",
        "fragments of A in the wrong order",
        "rows[w], rows[w + 8 * WORDS], rows[w + 4]",
        "rows[w], rows[w + 4], rows[w + 8 * WORDS]",
    )
    .bf16(),
    bug("gemm.cu", "the rows of a result's second half", "g + (i / 2) * 8, (warp", "g + (i % 2) * 8, (warp").bf16(),
    bug(
        "gemm_pipelined.cu",
        "chunks are copied to where nobody looks for them",
        "        to = Tile::place(line, chunk);",
        "        to = line * (Tile::CHUNKS * 16) + chunk * 16;",
    )
    .bf16()
    .family("operations"),
    bug(
        "gemm_pipelined.cu",
        "lanes of ldmatrix in the other operand's order",
        "lane_line(u32 lane) { return IS_A == K_INNER",
        "lane_line(u32 lane) { return IS_A != K_INNER",
    )
    .bf16()
    .family("operations"),
    bug(
        "gemm_pipelined.cu",
        "a tile is copied to the stage that is being read",
        "u32 read = 0, write = (T::STAGES - 1) * STAGE_BYTES;",
        "u32 read = 0, write = (T::STAGES - 2) * STAGE_BYTES;",
    )
    .bf16()
    .family("operations"),
    bug(
        "gemm_pipelined.cu",
        "the next tile is not waited for",
        "stage after the barrier.\n                    cp_async_wait<T::STAGES - 2>();",
        "stage after the barrier.\n                    cp_async_wait<T::STAGES - 1>();",
    )
    .bf16()
    .family("operations"),
    bug(
        "gemm_pipelined.cu",
        "no barrier between a tile's copies and its fragments",
        "stage after the barrier.\n                    cp_async_wait<T::STAGES - 2>();\n                    __syncthreads();",
        "stage after the barrier.\n                    cp_async_wait<T::STAGES - 2>();",
    )
    .bf16()
    .family("operations"),
    bug(
        "gemm_pipelined.cu",
        "the first tile is not waited for",
        "        cp_async_wait<T::STAGES - 2>();\n        __syncthreads();\n        u32 a[M][4]",
        "        cp_async_wait<T::STAGES - 1>();\n        __syncthreads();\n        u32 a[M][4]",
    )
    .bf16()
    .family("operations"),
    bug(
        "gemm_pipelined.cu",
        "a warp reads results before all lanes have stored them",
        "            __syncwarp();\n#pragma unroll 1",
        "#pragma unroll 1",
    )
    .bf16()
    .family("operations"),
    bug(
        "gemm_pipelined.cu",
        "the last tile of k is left out",
        "(end - begin + DEPTH<E> - 1) / DEPTH<E>",
        "(end - begin) / DEPTH<E>",
    )
    .bf16()
    .family("operations"),
    bug("gemm_pipelined.cu", "what follows the end of a row", "u32(max(min(left, Tile::CHUNK), 0))", "u32(Tile::CHUNK)")
        .bf16()
        .family("operations"),
    bug("gemm_pipelined.cu", "the bias of other columns", "piece.bias4(sums.first_column())", "piece.bias4(0)")
        .bf16()
        .family("operations"),
    bug("gemm.cuh", "every piece of a sum has the bias", "p.splits > 1 ? accumulator_t<E>(0) : bias_of_c(n)", "bias_of_c(n)")
        .family("operations"),
    bug("gemm_sum.cu", "the last piece is left out", "s < p.splits; ++s", "s + 1 < p.splits; ++s").family("operations"),
    bug("gemm_sum.cu", "sums without the bias", "piece.bias_of_c(n)", "V(0)").family("operations"),
    bug("gemm_few_rows.cu", "every piece of a sum has the first one's k", "k = begin + warp_id() * PART", "k = warp_id() * PART")
        .family("operations"),
    bug("gemm_exact.cu", "the bias of the other half of the columns", "bias[half]", "bias[1 - half]").family("operations"),
    bug("gemm_pipelined.cu", "results without the factor", "const float alpha = float(piece.alpha());", "const float alpha = 1.0f;")
        .bf16()
        .family("operations"),
    bug(
        "gemm_exact.cu",
        "the tile that is multiplied is not waited for",
        "cp_async_wait<T::STAGES - 2>();",
        "cp_async_wait<T::STAGES - 1>();",
    )
    .family("operations"),
    bug(
        "gemm_exact.cu",
        "no barrier between copying a tile and multiplying it",
        "cp_async_wait<T::STAGES - 2>();\n            __syncthreads();",
        "cp_async_wait<T::STAGES - 2>();",
    )
    .family("operations"),
    bug(
        "gemm_exact.cu",
        "a tile is copied to the stage that is being read",
        "write = (T::STAGES - 1) * STAGE_BYTES;\n        for",
        "write = 0;\n        for",
    )
    .family("operations"),
    bug("gemm_exact.cu", "the second eight of k go by the first", "left > 8 * half;", "left > 0;")
        .family("operations"),
    bug("gemm_exact.cu", "chunks of a line in another order", "row() / 4 + 4 * half", "row() / 4 + 4 * (1 - half)")
        .family("operations"),
    bug("gemm_exact.cu", "a step too many of each sequence", "row.outer < lengths[row.inner];", "row.outer <= lengths[row.inner];"),
    bug(
        "gemm_few_rows.cu",
        "a warp reads what other lanes have not copied yet",
        "            __syncwarp();  // all lanes' copies are there, and all have read the part before\n",
        "",
    )
    .family("operations"),
    bug(
        "gemm_few_rows.cu",
        "a part is not waited for",
        "            cp_async_wait<S::STAGES - 2>();",
        "            cp_async_wait<S::STAGES - 1>();",
    )
    .bf16()
    .family("operations"),
    bug("gemm_few_rows.cu", "the last warp's sum is left out", "w < S::WARPS; ++w", "w < S::WARPS - 1; ++w")
        .bf16()
        .family("operations"),
    bug(
        "gemm_few_rows.cu",
        "rows k in another order than a's",
        "return k / 4 % 2 * 16 + k / 2 % 2 * 8 +",
        "return k / 2 % 2 * 16 + k / 4 % 2 * 8 +",
    )
    .bf16()
    .family("operations"),
    bug("gemm_few_rows.cu", "rows beyond eight are those of the first tile", "S::of_four(tile * 8 + g, t)", "S::of_four(g, t)")
        .bf16()
        .family("operations"),
    bug(
        "gemm_few_rows.cu",
        "columns of a chunk are taken for its k",
        "acc[tile][O == NT ? i : j]",
        "acc[tile][O == NT ? j : i]",
    )
    .family("operations"),
    bug(
        "gemm_few_rows.cu",
        "no barrier before sums are added",
        "        __syncthreads();\n        for (u32 i = threadIdx.x; i < rows",
        "        for (u32 i = threadIdx.x; i < rows",
    )
    .bf16()
    .family("operations"),
    // Forward.
    bug(
        "step_forward.cu",
        "both biases are the same one",
        "load_or_zero<E>(d.bias_ih, row) + load_or_zero<E>(d.bias_hh, row)",
        "load_or_zero<E>(d.bias_ih, row) + load_or_zero<E>(d.bias_ih, row)",
    )
    .bf16(),
    bug("step_forward.cu", "one unit too few", "if (j >= columns) return;", "if (j + 1 >= columns) return;"),
    bug(
        "step_forward.cu",
        "sequences beyond the first are skipped",
        "for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) step_unit",
        "for (u32 b = blockIdx.y; b < 1; b += gridDim.y) step_unit",
    ),
    bug(
        "step_forward.cu",
        "LSTM: a padded step changes the state",
        "    const bool valid = is_valid(p.lengths, t, b);\n    if (valid) {\n        if (Cell::READS_H)",
        "    const bool valid = true;\n    if (valid) {\n        if (Cell::READS_H)",
    ),
    bug(
        "step_forward.cu",
        "LSTM: gates f and i exchanged",
        "wx[k * H] + recurrent[k * H] + bias_of",
        "wx[k * H] + recurrent[(G == 4 && k < 2 ? 1 - k : k) * H] + bias_of",
    ),
    bug(
        "step_forward.cu",
        "LSTM: cn is the output",
        "store<E>(d.cn, (u64(b) * S + k) * H + j, u.state[k]);",
        "store<E>(d.cn, (u64(b) * S + k) * H + j, u.h);",
    ),
    bug(
        "step_forward.cu",
        "LSTM: c comes from the same step",
        "const u32 before = anew ? 0 : time_of(d.reverse, p.seq_len, s.step - 1);",
        "const u32 before = t;",
    ),
    bug(
        "step_forward.cu",
        "GRU: the reset gate multiplies before the recurrent bias is added",
        "            u.a[N] = u.apart ? input : input + product;\n            u.q = product;",
        "            const V late = u.apart ? load_or_zero<E>(d.bias_hh, N * H + j) : V(0);\n            u.a[N] = u.apart ? input + late : input + product;\n            u.q = product - late;",
    ),
    bug(
        "step_forward.cu",
        "GRU, reset before: r * h of the wrong unit",
        "store<E>(d.reset_h, kept_row(p, t, b) * H + j, u.q);",
        "store<E>(d.reset_h, kept_row(p, t, b) * H + (j ? j - 1 : j), u.q);",
    ),
    bug(
        "sequence.cuh",
        "a reverse direction runs forward",
        "return reverse ? seq_len - 1 - step : step;",
        "return step;",
    ),
    bug("sequence.cuh", "lengths are ignored", "return lengths == nullptr || t < lengths[b];", "return true;"),
    bug(
        "sequence.cuh",
        "resets of padded steps count",
        "(is_reset(resets, batch, t, b) && is_valid(lengths, t, b))",
        "is_reset(resets, batch, t, b)",
    ),
    bug(
        "sequence.cuh",
        "resets of another sequence",
        "resets[u64(t) * batch + b] != 0",
        "resets[u64(t) * batch + (b + 1) % batch] != 0",
    ),
    bug(
        "sequence.cuh",
        "only resets of one count",
        "resets[u64(t) * batch + b] != 0;",
        "resets[u64(t) * batch + b] == 1;",
    ),
    bug(
        "sequence.cuh",
        "a reset leaves zeros instead of the initial state",
        "const V start = anew ? load_or_zero<E>(d.h0, u64(b) * p.output_size + j) : after;",
        "const V start = anew ? V(0) : after;",
    ),
    bug(
        "sequence.cuh",
        "padded outputs are held where they are to be zero",
        "p.hold && !d.reverse ? before : V(0);",
        "before;",
    ),
    bug(
        "sequence.cuh",
        "padded outputs are zero where they are to be held",
        "p.hold && !d.reverse ? before : V(0);",
        "V(0);",
    ),
    bug(
        "sequence.cuh",
        "a padded step hands on what the cell gave",
        "const V after = valid ? h : before;",
        "const V after = h;",
    ),
    bug(
        "cells/gru.cuh",
        "GRU: z and 1 - z exchanged",
        "return (V(1) - z) * n + z * h_prev;",
        "return z * n + (V(1) - z) * h_prev;",
    ),
    bug(
        "cells/lstm.cuh",
        "LSTM: the output gate's peephole sees the state before",
        "peepholes.o(a[Lstm::O], r.c);",
        "peepholes.o(a[Lstm::O], c_prev);",
    ),
    bug(
        "cells/lstm.cuh",
        "LSTM: coupled gates are not",
        "functions.coupled() ? V(1) - r.gate[Lstm::I] : functions.gate(r.a[Lstm::F]);",
        "functions.gate(r.a[Lstm::F]);",
    ),
    // Backward.
    bug("cells/gru.cuh", "GRU: the wrong sign of z's gradient", "(h_prev - n) * slope_z", "(n - h_prev) * slope_z"),
    bug(
        "cells/lstm.cuh",
        "LSTM: what comes back through c is lost",
        "peepholes.o(dc + du * factors.output",
        "peepholes.o(du * factors.output",
    ),
    bug(
        "cells/lstm.cuh",
        "LSTM: the clip of the cell lets gradients through",
        "r.clip = functions.clip_cell_slope(f * c_prev + i * g);",
        "r.clip = V(1);",
    ),
    bug("cells/rnn.cuh", "RNN: the activation's slope is left out", "return slope;", "return V(1);"),
    bug(
        "activations.cuh",
        "the slope of tanh",
        "case ACT_TANH: return V(1) - y * y;",
        "case ACT_TANH: return V(1) - y;",
    ),
    bug(
        "activations.cuh",
        "a NaN becomes zero in relu",
        "case ACT_RELU: return x <= V(0) ? V(0) : x;",
        "case ACT_RELU: return x > V(0) ? x : V(0);",
    ),
    bug(
        "step_backward.cu",
        "dhn is forgotten",
        "static_cast<V*>(d.dh)[i] = load_or_zero<E>(d.dhn, i);",
        "static_cast<V*>(d.dh)[i] = V(0);",
    ),
    bug(
        "step_backward.cu",
        "dh0 lacks what resets sent there",
        "static_cast<const V*>(d.dh)[i] + static_cast<const V*>(d.dh_reset)[i]",
        "static_cast<const V*>(d.dh)[i]",
    ),
    bug(
        "step_backward.cu",
        "a reset's gradient is set instead of added",
        "static_cast<V*>(reset)[i] += carried;",
        "static_cast<V*>(reset)[i] = carried;",
    ),
    bug(
        "step_backward.cu",
        "dy counts at padded steps",
        "const bool counts = is_valid(p.lengths, t, b) || (p.hold && !d.reverse);",
        "const bool counts = true;",
    ),
    bug(
        "step_backward.cu",
        "RNN: a padded step drops the gradient that it passes on",
        "static_cast<V*>(d.dh)[own] = !valid ? dh : Cell::READS_H ? u.dh : V(0);",
        "static_cast<V*>(d.dh)[own] = Cell::READS_H ? u.dh : V(0);",
    ),
    bug(
        "cells/gru.cuh",
        "GRU: r's gradient is set where it is to be added to",
        "u.dh += r * u.dq;",
        "u.dh = r * u.dq;",
    ),
    bug(
        "step_backward.cu",
        "GRU: gates' gradients in each other's place",
        "store<E>(d.dgates, dgates + gradient_slot<Cell>(k) * H, u.da[k]);",
        "store<E>(d.dgates, dgates + u64(k) * H, u.da[k]);",
    ),
    bug(
        "step_backward.cu",
        "LSTM: c_prev at a reset is that of the step before",
        "const bool anew = starts_anew(p.lengths, p.resets, p.batch, s.step, t, b);",
        "const bool anew = s.step == 0;",
    ),
    // Reductions and dropout.
    bug(
        "reduce.cu",
        "no barrier before the warps' sums are added",
        "    sums[threadIdx.x] = value;\n    __syncthreads();",
        "    sums[threadIdx.x] = value;",
    ),
    bug(
        "reduce.cu",
        "the last warp's sum is left out",
        "for (u32 w = 1; w < 8; ++w) total",
        "for (u32 w = 1; w < 7; ++w) total",
    ),
    bug(
        "reduce.cu",
        "the last row of a piece is left out",
        "threadIdx.x / 32; r < end; r += 8) {\n            sum += load<E>(p.rows.data",
        "threadIdx.x / 32; r + 1 < end; r += 8) {\n            sum += load<E>(p.rows.data",
    ),
    bug(
        "reduce.cu",
        "gradients of biases are set where they are to be added to",
        "p.accumulate ? load<E>(p.out, i) + scaled : scaled",
        "scaled",
    ),
    bug(
        "reduce.cu",
        "peepholes: the forget gate's is the input gate's",
        "peephole == 1 ? Lstm::F : Lstm::O",
        "peephole == 1 ? Lstm::I : Lstm::O",
    ),
    bug("dropout.cu", "the mask of another step", "r / p.batch, p.layer};", "r / p.batch + 1, p.layer};"),
    bug("dropout.cu", "the mask of another layer", "r / p.batch, p.layer};", "r / p.batch, p.layer - 1};"),
    bug(
        "dropout.cu",
        "kept elements are not scaled",
        "load<E>(p.x.data, from + f) * V(p.scale)",
        "load<E>(p.x.data, from + f)",
    ),
    bug("dropout.cu", "kept at the threshold's wrong side", "bits[k] >= p.threshold", "bits[k] < p.threshold"),
    // The persistent kernels. What a group of blocks gets wrong shows in its own family only.
    bug(
        "persistent/exchange.cuh",
        "grid: the sentinel is not looked for",
        "        if (!polled) return;",
        "        return;",
    )
    .bf16()
    .family("grid"),
    bug(
        "persistent/exchange.cuh",
        "grid, exact: the sentinel is not looked for",
        "            if (from.polled)\n",
        "            if (false)\n",
    )
    .family("grid"),
    bug(
        "persistent/exchange.cuh",
        "grid, exact: no barrier after a vector is gathered",
        "        __syncthreads();\n        return {stage, PITCH};",
        "        return {stage, PITCH};",
    )
    .family("grid"),
    bug(
        "persistent/exchange.cuh",
        "grid: sequences beyond the batch are waited for",
        "if (row >= rows) count = 0;",
        "",
    )
    .bf16()
    .family("grid"),
    bug(
        "persistent.cuh",
        "grid: one piece of memory for the partial sums",
        "memory + SUMS + item % Exchange::SUM_BUFFERS * Sums::BYTES",
        "memory + SUMS + item * 0",
    )
    .bf16()
    .family("grid"),
    bug(
        "persistent/exchange.cuh",
        "cluster: the wrong phase of the barrier",
        "((n - FIRST) >> 1) & 1); }, failed);",
        "(n - FIRST) & 1); }, failed);",
    )
    .bf16()
    .family("cluster"),
    bug(
        "persistent/exchange.cuh",
        "cluster: nobody waits for the vector",
        "        if (int(n) >= FIRST)\n            patience.until([&] { return mbarrier_test",
        "        if (false)\n            patience.until([&] { return mbarrier_test",
    )
    .bf16()
    .family("cluster"),
    bug(
        "persistent/exchange.cuh",
        "cluster: blocks store before the others' barriers are initialised",
        "        __syncthreads();\n        cluster_arrive();\n        cluster_wait();\n    }\n    DEVICE SharedVector",
        "        __syncthreads();\n    }\n    DEVICE SharedVector",
    )
    .bf16()
    .family("cluster"),
    bug(
        "persistent/exchange.cuh",
        "cluster: bytes of a whole tile are waited for",
        "group.sequences(tile) * group.row_bytes);",
        "S::TILE * group.row_bytes);",
    )
    .bf16()
    .family("cluster"),
    bug(
        "persistent/exchange.cuh",
        "cluster: a packet is sent before all lanes have put their part in",
        "        __syncwarp();\n        const u8* const to",
        "        const u8* const to",
    )
    .bf16()
    .family("cluster"),
    bug(
        "persistent/exchange.cuh",
        "cluster: a packet of the row before",
        "u8* const own = gathered + row * OWN_ROW;",
        "u8* const own = gathered;",
    )
    .bf16()
    .family("cluster"),
    bug(
        "persistent/exchange.cuh",
        "block: no barrier after publishing",
        "DEVICE void published(u32, u32) { __syncthreads(); }",
        "DEVICE void published(u32, u32) {}",
    )
    .family("block"),
    bug(
        "persistent/product.cuh",
        "the fragments of B in the wrong order",
        "b0 = step ? v.z : v.x, b1 = step ? v.w : v.y;",
        "b0 = step ? v.w : v.x, b1 = step ? v.z : v.y;",
    )
    .bf16()
    .family("block"),
    bug(
        "persistent/product.cuh",
        "only the first chain of sums",
        "for (int chain = 1; chain < CHAINS; ++chain) v[row] += acc[n][chain]",
        "for (int chain = CHAINS; chain < CHAINS; ++chain) v[row] += acc[n][chain]",
    )
    .bf16()
    .family("block"),
    bug(
        "persistent/product.cuh",
        "wide: the second half of a tile is multiplied with the first one's vector",
        "const uint4 v = b[n][i];",
        "const uint4 v = b[0][i];",
    )
    .bf16()
    .family(WIDE),
    bug(
        "persistent/product.cuh",
        "wide: the sums of the second half take the place of the first one's",
        "sums.put(part, n * COLUMNS + 2 * (lane % 4) + s,",
        "sums.put(part, 2 * (lane % 4) + s,",
    )
    .bf16()
    .family(WIDE),
    bug(
        "persistent/exchange.cuh",
        "wide: sequences of the second half that are beyond the batch are waited for",
        "n == 0 || row + n * COLUMNS < rows ? count : 0;",
        "count;",
    )
    .bf16()
    .family(WIDE),
    bug(
        "persistent/exchange.cuh",
        "wide: only the first half of a tile is waited for",
        "if (has_sentinel(out[n][i])) {",
        "if (n == 0 && has_sentinel(out[n][i])) {",
    )
    .bf16()
    .family(WIDE),
    bug(
        "persistent/ahead.cuh",
        "wide: a tile ends with the first half of its sequences",
        "longest(from, min(end, from + S::TILE), back);",
        "longest(from, min(end, from + 8), back);",
    )
    .bf16()
    .family(WIDE),
    bug(
        "ended.cu",
        "wide: tiles of 8 sequences have ended",
        "const u32 first = b / tile * tile, end = min(first + tile, batch);",
        "const u32 first = b / 8 * 8, end = min(first + 8, batch);",
    )
    .bf16()
    .family(WIDE),
    bug(
        "persistent/product.cuh",
        "grid, exact: one piece of k too few",
        "used = (row_bytes / PIECE + SPLIT - 1) / SPLIT;",
        "used = row_bytes / PIECE / SPLIT;",
    )
    .family("grid"),
    bug(
        "persistent/exchange.cuh",
        "two units of a word exchanged",
        "const u32 w[1] = {pack<E>(v[0], next)};",
        "const u32 w[1] = {pack<E>(next, v[0])};",
    )
    .bf16()
    .family("block"),
    bug(
        "persistent_forward.cu",
        "no barrier between the product and its sum",
        "                __syncthreads();\n                ForwardResults<G> results",
        "                ForwardResults<G> results",
    )
    .family("block"),
    bug(
        "persistent_forward.cu",
        "a reset keeps the cell state",
        "if (Cell::CELL_STATE) memory.state(tile, STATE_C, e) = load_or_zero<E>(d.c0, own(tile, e));",
        "",
    )
    .family("block"),
    bug(
        "persistent_forward.cu",
        "W x of the step before",
        "fetch_wx<PLAIN>(item + Ring::AHEAD, step, Ring::AHEAD);",
        "fetch_wx<PLAIN>(item + Ring::AHEAD, step, Ring::AHEAD - 1);",
    )
    .bf16()
    .family("block"),
    bug(
        "persistent_forward.cu",
        "W x of the step before, where there are lengths or tiles",
        "i64(PLAIN ? ahead : next_step - step) * row_stride",
        "i64(PLAIN ? ahead : 0) * row_stride",
    )
    .family("block"),
    bug(
        "persistent/ahead.cuh",
        "inputs are taken before they are there",
        "cp_async_wait<AHEAD - 1>();",
        "cp_async_wait<AHEAD>();",
    )
    .family("block"),
    bug(
        "persistent/ahead.cuh",
        "two items under way in the same place",
        "((item % AHEAD) * WIDTH + i)",
        "(item % AHEAD * 0 + i)",
    )
    .bf16()
    .family("cluster"),
    bug(
        "persistent_forward.cu",
        "a step past the length counts",
        "(is_valid(p.lengths, t, b) ? ForwardInputs<G>::VALID : 0)",
        "(p.lengths == nullptr || t <= p.lengths[b] ? ForwardInputs<G>::VALID : 0)",
    )
    .family("block"),
    bug(
        "persistent_forward.cu",
        "padding of the vector is not published",
        "S::row(e) < sequences && j < p.h_prev_stride, start);",
        "S::row(e) < sequences && j < p.hidden_size, start);",
    )
    .bf16()
    .family("grid"),
    bug(
        "persistent_forward.cu",
        "h_prev in training is y",
        "p.h_prev_stride] = round_to<E>(results[e].start);",
        "p.h_prev_stride] = round_to<E>(results[e].y);",
    )
    .family("block"),
    bug(
        "persistent_backward.cu",
        "no barrier between the product and its sum",
        "                __syncthreads();\n                const u32 sequences",
        "                const u32 sequences",
    )
    .family("block"),
    bug(
        "persistent_backward.cu",
        "a reset's gradient is set instead of added",
        "static_cast<float*>(d.dh_reset)[own(tile, e)] += carried(",
        "static_cast<float*>(d.dh_reset)[own(tile, e)] = carried(",
    )
    .family("block"),
    bug(
        "persistent_backward.cu",
        "gradients pass through a reset",
        "dh = (!PLAIN && in.anew_after() ? 0.0f : dh) + (counts",
        "dh = dh + (counts",
    )
    .family("block"),
    bug(
        "persistent_backward.cu",
        "dy counts at padded steps",
        "const bool counts = PLAIN || in.valid() || (p.hold && !d.reverse);",
        "const bool counts = true;",
    )
    .family("block"),
    bug(
        "persistent_backward.cu",
        "both directions exchange in the same place",
        "launch.exchange[blockIdx.z]",
        "launch.exchange[0]",
    )
    .bf16()
    .family("grid"),
    bug(
        "persistent_backward.cu",
        "a step that starts anew has the state before it",
        "saved[Unit::C_PREV] = load_or_zero<E>(d.c0, own(tile, e));",
        "",
    )
    .family("block"),
    bug(
        "persistent_backward.cu",
        "GRU: the other half of a word",
        "j % 2 ? unpack_high<E>(word) : unpack_low<E>(word);",
        "j % 2 ? unpack_low<E>(word) : unpack_high<E>(word);",
    )
    .bf16()
    .family("block"),
    bug(
        "persistent_forward.cu",
        "one input: the weight of the first gate for all",
        "launch.weight_ih[blockIdx.z], k * p.hidden_size + j",
        "launch.weight_ih[blockIdx.z], j",
    )
    .bf16()
    .family("block"),
    bug("persistent_forward.cu", "one input: x of the first step for all", "                    x_walk.next();\n", "")
        .bf16()
        .family("block"),
    bug(
        "saved.cuh",
        "16 bits: two gates of a piece exchanged",
        "pack_saved<true, true>(gate[Lstm::I], gate[Lstm::F])",
        "pack_saved<true, true>(gate[Lstm::F], gate[Lstm::I])",
    )
    .bf16()
    .family("block"),
    bug(
        "saved.cuh",
        "16 bits: q in the place of a gate",
        "unpack_saved<false, false>(piece.y, gate[Gru::N], q);",
        "unpack_saved<false, false>(piece.y, q, gate[Gru::N]);",
    )
    .bf16(),
    bug(
        "saved.cuh",
        "16 bits: a gate near one is kept as it is",
        "GATE_LOW && low > 0.5f ? -(1.0f - low) : low, GATE_HIGH && high > 0.5f ? -(1.0f - high) : high",
        "low, high",
    )
    .f16(),
    bug("saved.cuh", "16 bits: a gate that is one is kept as zero", "-(1.0f - high) : high", "high - 1.0f : high").bf16(),
    bug("saved.cuh", "16 bits: the sign of the other half of a word", "(word & 0x8000u) != 0", "(word & 0x80000000u) != 0")
        .bf16(),
    bug("persistent_backward.cu", "GRU: what R_n gets lacks r", "da[Gru::N] = r * g.da_n;", "da[Gru::N] = g.da_n;")
        .family("block"),
    bug(
        "persistent_backward.cu",
        "the product of the first step is left out",
        "                if (n > span.first)\n                    product.multiply(",
        "                if (n > span.first + 1)\n                    product.multiply(",
    )
    .family("block"),
    bug(
        "persistent/ahead.cuh",
        "a tile ends with its first sequence",
        "steps = min(warp_max(steps), count);",
        "steps = min(steps, count);",
    )
    .bf16()
    .family("block"),
    bug(
        "ended.cu",
        "the state is not carried through steps that have ended",
        "if (every_step && following < T) h_prev[slot(following)] = h;",
        "",
    )
    .bf16()
    .family("grid"),
    bug("ended.cu", "gradients of ended steps are not set", "dgates[k * H] = zero<E>();", ";").family("block"),
    bug("ended.cu", "dy of held outputs is left out", "t-- > ended;) sum += load<E>", "t-- > T;) sum += load<E>")
        .family("block"),
    // Tensor operations.
    bug(
        "elementwise.cu",
        "y is read where it does not count",
        "p.beta == 0.0 ? x : x + beta * load<E>(p.y, i)",
        "x + beta * load<E>(p.y, i)",
    )
    .family("operations"),
    bug(
        "elementwise.cu",
        "strides of one side for both",
        "from += index * p.from_stride[axis];",
        "from += index * p.to_stride[axis];",
    )
    .family("operations"),
    bug(
        "elementwise.cu",
        "a strided copy that sets instead of adding",
        "*target = p.accumulate ? round_to<E>(to_float(*target) + to_float(*source)) : *source;",
        "*target = *source;",
    )
    .family("operations"),
    bug("elementwise.cu", "division by a factor of zero", "factor == V(0) ? V(0) : x / factor", "x / factor")
        .family("operations"),
    bug(
        "elementwise.cu",
        "what is not selected shines through",
        "first ? a[i] : b == nullptr ? zero<E>() : b[i]",
        "first || b == nullptr ? a[i] : b[i]",
    )
    .family("operations"),
    bug(
        "rows.cu",
        "the last term of a sum is left out",
        "for (u64 c = lane; c < p.count; c += p.lanes) sum +=",
        "for (u64 c = lane; c + 1 < p.count; c += p.lanes) sum +=",
    )
    .family("operations"),
    bug("rows.cu", "every lane its own sum", "if (warps) sum = warp_sum(sum);", "").family("operations"),
    bug("rows.cu", "the last of equals", "value > largest || is_nan", "value >= largest || is_nan")
        .family("operations"),
    bug("rows.cu", "NaN loses", "value > largest || is_nan", "value > largest").family("operations"),
    bug(
        "rows.cu",
        "a maximum under the first row's mask",
        "load<E>(p.mask, row + c) == V(0)",
        "load<E>(p.mask, c) == V(0)",
    )
    .family("operations"),
    bug("rows.cu", "the gradient of a maximum at all before it", "p.position[at] == c ?", "p.position[at] >= c ?")
        .family("operations"),
    bug(
        "norm.cu",
        "a query does not see itself",
        "min(p.columns, row % p.queries + 1)",
        "min(p.columns, row % p.queries)",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "rows do not share the mask's row",
        "row / p.rows_per_key * p.columns",
        "row % p.rows_per_key * p.columns",
    )
    .family("operations"),
    bug("norm.cu", "every lane takes off its own largest", "        largest = warp_max(largest);\n", "")
        .family("operations"),
    bug("norm.cu", "hidden columns count in the total", "if (valid(c)) total +=", "total +=").family("operations"),
    bug("norm.cu", "softmax's gradient without the mean", "* (load<E>(p.dy, i) - sum)", "* load<E>(p.dy, i)")
        .family("operations"),
    bug(
        "norm.cu",
        "the sample's variance",
        "warp_sum(squares) / count + V(p.epsilon)",
        "warp_sum(squares) / (count - V(1)) + V(p.epsilon)",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "the deviation itself is kept",
        "store<E>(p.statistics, 2 * row + 1, inverse)",
        "store<E>(p.statistics, 2 * row + 1, V(1) / inverse)",
    )
    .bf16()
    .family("operations"),
    bug(
        "norm.cu",
        "no gradient through the mean of a row",
        "(slope(c) - first - normal(c) * second)",
        "(slope(c) - normal(c) * second)",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "no barrier between two sums over groups",
        "        __syncthreads();\n        sums[threadIdx.x] = value;",
        "        sums[threadIdx.x] = value;",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "no barrier before groups are added",
        "        sums[threadIdx.x] = value;\n        __syncthreads();",
        "        sums[threadIdx.x] = value;",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "a variance without weights",
        "squares += load_or<E>(p.weights, r, V(1)) * d * d;",
        "squares += d * d;",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "the last row of a run is left out",
        "const u64 end = p.rows * (blockIdx.y + 1) / p.pieces;",
        "const u64 end = p.rows * (blockIdx.y + 1) / p.pieces - 1;",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "no barrier before warps are added",
        "    weights[threadIdx.x] = weight;\n    __syncthreads();",
        "    weights[threadIdx.x] = weight;",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "only the first run of rows",
        "for (u32 piece = 1; piece < p.pieces; ++piece) total",
        "for (u32 piece = p.pieces; piece < p.pieces; ++piece) total",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "gradients of gamma and beta exchanged",
        "i < p.columns ? p.dbeta : p.dgamma",
        "i < p.columns ? p.dgamma : p.dbeta",
    )
    .family("operations"),
    bug(
        "norm.cu",
        "rows that do not count get a share of the gradient",
        "share = all == V(0) ? V(0) : weight / all",
        "share = all == V(0) ? V(0) : V(1) / all",
    )
    .family("operations"),
    bug(
        "rows.cu",
        "only the first lane's columns are compared",
        "if (warps) differs = __any_sync(FULL_WARP, differs);",
        "",
    )
    .family("operations"),
    bug("rows.cu", "steps before a chunk are forgotten", "            before += __popc(valid);\n", "")
        .family("operations"),
    bug("rows.cu", "in reverse the step before is held", "p.reverse ? place < count : place > 0", "place > 0")
        .family("operations"),
    bug(
        "rows.cu",
        "the end of the list keeps what was there",
        "for (u64 t = count + lane_id(); t < p.steps; t += 32) p.rows[begin + t] = NO_ROW;",
        "",
    )
    .family("operations"),
    bug("rows.cu", "no row reads as NaN", "row == NO_ROW ? accumulator_t<E>(0) :", "false ? accumulator_t<E>(0) :")
        .family("operations"),
    bug(
        "rows.cu",
        "the sum of the last run goes on",
        "load<E>(p.dx, at) + sum);\n                sum = V(0);",
        "load<E>(p.dx, at) + sum);",
    )
    .family("operations"),
    bug("rows.cu", "a fraction is an index", "x < double(p.rows) && double(u64(x)) == x", "x < double(p.rows)")
        .family("operations"),
    bug("rows.cu", "one row too many", "x < double(p.rows) &&", "x <= double(p.rows) &&").family("operations"),
    bug(
        "gemm.cu",
        "a single product without the factor",
        "fused_multiply_add(alpha, value, piece.bias(n))",
        "value + piece.bias(n)",
    )
    .family("operations"),
    bug("reduce.cu", "a sum of parts without the factor", "const V scaled = V(p.alpha) * sum", "const V scaled = sum")
        .family("operations"),
    bug(
        "rows.cu",
        "no row is outside of a table",
        "p.indices[i] >= p.rows && p.indices[i] != NO_ROW",
        "p.indices[i] >= p.rows",
    )
    .family("operations"),
    // Losses, optimizers, norms.
    bug(
        "training.cu",
        "Adam without its decay",
        "decayed * load<E>(p.parameters, i) - step",
        "load<E>(p.parameters, i) - step",
    )
    .family("operations"),
    bug("training.cu", "no look ahead along the velocity", "p.nesterov ? V(p.momentum) * v - change : v", "v")
        .family("operations"),
    bug("training.cu", "a variance about zero", "variance -= mean * mean;", "").family("operations"),
    bug("training.cu", "Huber's slope has no limit", "slope = delta * sign(d);", "slope = d;").family("operations"),
    bug("training.cu", "every row weighs as the first", "load<E>(p.weights, i / p.columns)", "load<E>(p.weights, 0)")
        .family("operations"),
    bug("training.cu", "an infinity is finite", "return x - x == V(0);", "return x == x;").family("operations"),
    bug("training.cu", "divided by the square of the norm", "V(p.most / norm)", "V(p.most / *p.sum_of_squares)")
        .family("operations"),
    bug(
        "training.cu",
        "no barrier before warps are added to a loss",
        "if (lane_id() == 0) warps[warp_id()] = x;\n    __syncthreads();",
        "if (lane_id() == 0) warps[warp_id()] = x;",
    )
    .family("operations"),
    // Heads, and gates as input.
    bug(
        "heads.cu",
        "every head reads the first one's h",
        "const u32 first = r % p.hidden_size / N * N;",
        "const u32 first = 0;",
    ),
    bug(
        "heads.cu",
        "back through a head as it stands, not transposed",
        "(u64(g) * H + first + i) * N + column",
        "(u64(g) * H + first + column) * N + i",
    ),
    bug(
        "heads.cu",
        "a head's product is set where it is to be added to",
        "out = p.accumulate ? out + sums[s] : sums[s];",
        "out = sums[s];",
    ),
    bug(
        "heads.cu",
        "a head's gradient by another one's h",
        "column = row % p.hidden_size / N * N + u32(element % N);",
        "column = u32(element % N);",
    ),
    bug(
        "gates.cu",
        "both directions read the first one's gates",
        "const u64 from = row_offset(p.x, r) + u64(blockIdx.z) * p.columns + column;",
        "const u64 from = row_offset(p.x, r) + column;",
    ),
    bug("gates.cu", "gradients of gates in the order of their slots", "gate == last ? 0 : gate + 1", "gate"),
    // Between segments, where training keeps checkpoints.
    bug(
        "segments.cu",
        "the second direction's gradient replaces the first one's",
        "p.accumulate ? load<E>(out, to) + value : value);",
        "value);",
    ),
    bug(
        "segments.cu",
        "a segment's lengths are those of the whole sequence",
        "p.lengths[b] > p.first ? p.lengths[b] - p.first : 0;",
        "p.lengths[b];",
    ),
    bug(
        "segments.cu",
        "outputs are held from the step after the first padded one",
        "for (u32 t = p.lengths[b]; t < p.steps; ++t) store<E>",
        "for (u32 t = p.lengths[b] + 1; t < p.steps; ++t) store<E>",
    ),
    bug(
        "segments.cu",
        "the gradient of held outputs replaces the state's",
        "V sum = *own;",
        "V sum = V(0);",
    ),
    bug(
        "segments.cu",
        "a reset at a segment's first step leaves the cell state",
        "if (p.wide) static_cast<V*>(p.to)[own] = value;",
        "if (p.wide) continue;",
    ),
    bug(
        "segments.cu",
        "the gradient of a reset goes to the segment before too",
        "static_cast<V*>(p.from)[own] = V(0);",
        "",
    ),
    bug(
        "sequence.cuh",
        "a segment starts from the initial cell state",
        "return d.start_c != nullptr ? static_cast<const V*>(d.start_c)[i] : load_or_zero<E>(d.c0, i);",
        "return load_or_zero<E>(d.c0, i);",
    ),
    // The other cells.
    bug("cells/slstm.cuh", "sLSTM: the normaliser forgets nothing", "f * u.state[N] + i;", "u.state[N] + i;"),
    bug(
        "cells/slstm.cuh",
        "sLSTM: m is what is kept",
        "const V m = e.kept >= e.fresh ? e.kept : e.fresh;",
        "const V m = e.kept;",
    ),
    bug("cells/slstm.cuh", "sLSTM: no gradient through the normaliser", "u.dstate[N] - du * ratio;", "u.dstate[N];"),
    bug("cells/slstm.cuh", "sLSTM: the larger side gets both gradients", "kept ? df + dm : df;", "df + dm;"),
    bug(
        "cells/mgu.cuh",
        "MGU: f and 1 - f exchanged",
        "(V(1) - u.gate[F]) * u.h + u.gate[F] * u.gate[N];",
        "u.gate[F] * u.h + (V(1) - u.gate[F]) * u.gate[N];",
    ),
    bug(
        "cells/mgu.cuh",
        "MGU: no gradient of f through the candidate",
        "(u.dh * (n - u.h_prev) + u.dq * u.h_prev)",
        "(u.dh * (n - u.h_prev))",
    ),
];
