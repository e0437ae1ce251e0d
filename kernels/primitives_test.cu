// primitives_test.cu - every primitive of prims.cuh on plain buffers, and kernels with known mistakes.
//
// Tests alone: the entries are in the catalog of builds with the feature `emulated`. tests/common/primitives.rs holds
// inputs and what must come out, computed there independently; tests/cuda/emulated.rs runs them on the host, tests/cuda/gpu.rs
// compares a GPU with the host. i counts the threads of the grid.
#include "params.cuh"

template <class T> DEVICE const T* input(const PrimitiveParams& p, int k = 0) { return static_cast<const T*>(p.in[k]); }
template <class T> DEVICE T* output(const PrimitiveParams& p, int k = 0) { return static_cast<T*>(p.out[k]); }
DEVICE u32 thread_of_grid() { return blockIdx.x * blockDim.x + threadIdx.x; }

// in f32 [n]; out0 u32 [n, 5]: f16, bf16, TF32, a pair of bf16, a pair of f16; out1 f32 [n, 2]: i as f16 and as bf16.
DEVICE void convert_test(const PrimitiveParams& p) {
    const u32 i = thread_of_grid();
    if (i >= p.n) return;
    const float x = input<float>(p)[i];
    u32* const out = output<u32>(p) + i * 5;
    out[0] = round_to<f16>(x).bits;
    out[1] = round_to<bf16>(x).bits;
    out[2] = round_tf32(__float_as_uint(x));
    out[3] = pack<bf16>(x, -x);
    out[4] = pack<f16>(x, -x);
    output<float>(p, 1)[i * 2] = unpack_low<f16>(i);
    output<float>(p, 1)[i * 2 + 1] = unpack_high<bf16>(i << 16);
}

// in V [n]; out V [n, 6].
template <class V> DEVICE void accurate_test(const PrimitiveParams& p) {
    const u32 i = thread_of_grid();
    if (i >= p.n) return;
    const V x = input<V>(p)[i];
    V* const out = output<V>(p) + i * 6;
    out[0] = exp_accurate(x);
    out[1] = expm1_accurate(x);
    out[2] = log_accurate(absolute(x));
    out[3] = log1p_accurate(absolute(x));
    out[4] = tanh_accurate(x);
    out[5] = square_root(absolute(x));
}

// in f32 [n]; out f32 [n, 3].
DEVICE void approximate_test(const PrimitiveParams& p) {
    const u32 i = thread_of_grid();
    if (i >= p.n) return;
    const float x = input<float>(p)[i];
    output<float>(p)[i * 3] = ex2_approx(x);
    output<float>(p)[i * 3 + 1] = rcp_approx(x);
    output<float>(p)[i * 3 + 2] = tanh_approx(x);
}

// in u32 [n, 6]: counter, key; out u32 [n, 4].
DEVICE void philox_test(const PrimitiveParams& p) {
    const u32 i = thread_of_grid();
    if (i >= p.n) return;
    const u32* const in = input<u32>(p) + i * 6;
    u32 counter[4] = {in[0], in[1], in[2], in[3]};
    philox4x32(counter, in[4] | u64(in[5]) << 32);
    for (int k = 0; k < 4; ++k) output<u32>(p)[i * 4 + k] = counter[k];
}

// in f32 [threads]; out0 f32 [threads, 2]: sum and maximum of the warp; out1 f64 [threads]: sum.
DEVICE void warp_reductions_test(const PrimitiveParams& p) {
    const u32 i = thread_of_grid();
    const float x = input<float>(p)[i];
    output<float>(p)[i * 2] = warp_sum(x);
    output<float>(p)[i * 2 + 1] = warp_max(x);
    output<double>(p, 1)[i] = warp_sum(double(x) * x);
}

// in u32 [threads]; out u32 [threads, 12].
DEVICE void shuffles_test(const PrimitiveParams& p) {
    const u32 i = thread_of_grid(), lane = lane_id();
    const u32 x = input<u32>(p)[i];
    u32* const out = output<u32>(p) + i * 12;
    out[0] = __shfl_sync(FULL_WARP, x, 5);
    out[1] = __shfl_sync(FULL_WARP, x, lane + 1, 8);
    out[2] = __shfl_xor_sync(FULL_WARP, x, 3);
    out[3] = __shfl_xor_sync(FULL_WARP, x, 16);
    out[4] = __shfl_down_sync(FULL_WARP, x, 3);
    out[5] = __shfl_down_sync(FULL_WARP, x, 1, 8);
    out[6] = __shfl_up_sync(FULL_WARP, x, 2);
    out[7] = __shfl_up_sync(FULL_WARP, x, 1, 4);
    out[8] = __ballot_sync(FULL_WARP, x & 1);
    out[9] = __any_sync(FULL_WARP, (x & 15) == 0);
    out[10] = __all_sync(FULL_WARP, (x & 15) != 0);
    out[11] = 0;
    // Half of a warp on its own.
    if (lane < 16) out[11] = __shfl_xor_sync(0x0000ffffu, x, 1);
    __syncwarp();
}

// Warps 2 and 3 produce, warps 0 and 1 consume and then exchange among themselves. in u32 [128]; out u32 [64]; 768
// bytes shared.
DEVICE void named_barriers_test(const PrimitiveParams& p) {
    SHARED(u32, values);
    u32* const sums = values + 128;
    const u32 i = threadIdx.x;
    if (warp_id() >= 2) {
        values[i] = input<u32>(p)[i];
        values[i - 64] = input<u32>(p)[i - 64];
        block_barrier_arrive(1, 128);
        return;
    }
    block_barrier(1, 128);
    sums[i] = values[i] + 3 * values[127 - i];
    block_barrier(2, 64);
    output<u32>(p)[i] = sums[63 - i];
}

// Two blocks, cooperative. Block 0 sends in u32 [4 * 128] with a flag, block 1 sends it back plus one by sentinels.
// out0 u32 [4 * 128], out1 u32 [4 * 128] as the way there, which starts as sentinels; flags [4].
DEVICE void hand_off_test(const PrimitiveParams& p) {
    const u32 i = threadIdx.x;
    const uint4* const in = input<uint4>(p);
    uint4* const there = output<uint4>(p, 1);
    uint4* const back = static_cast<uint4*>(p.extra);
    Spin spin(p.flags, 1u << 22);
    if (blockIdx.x == 0) {
        there[i] = in[i];
        __syncthreads();
        if (i == 0) st_release(p.flags + 1, 1);
        uint4 v;
        spin.until([&] { return !has_sentinel(v = ld_relaxed16(back + i)); }, 1);
        output<uint4>(p)[i] = v;
        atomic_add_acq_rel(p.flags + 2, 2);
    } else {
        if (i == 0) spin.until([&] { return ld_acquire(p.flags + 1) == 1; }, 2);
        __syncthreads();
        // Not through a cache that may hold what was there before.
        uint4 v = ld_relaxed16(there + i);
        v.x += 1;
        v.y += 1;
        v.z += 1;
        v.w += 1;
        switch (i % 3) {
            case 0: st_relaxed16(back + i, v); break;
            case 1:
                st_relaxed8(back + i, make_uint2(v.x, v.y));
                st_relaxed8(reinterpret_cast<uint2*>(back + i) + 1, make_uint2(v.z, v.w));
                break;
            default: {
                u32* const words = reinterpret_cast<u32*>(back + i);
                st_relaxed(words + 3, v.w);
                st_relaxed(words + 1, v.y);
                st_relaxed(words, v.x);
                st_relaxed(words + 2, v.z);
            }
        }
        atomic_add_acq_rel(p.flags + 2, 3);
    }
}

// A wait that gives up, and one after it. out u32 [128, 2]; flags [1] gets 42.
DEVICE void spin_gives_up_test(const PrimitiveParams& p) {
    Spin spin(p.flags, 2);
    const u32 i = threadIdx.x;
    output<u32>(p)[i * 2] = spin.until([&] { return i % 2 == 0; }, 42);
    output<u32>(p)[i * 2 + 1] = spin.until([&] { return i % 4 == 0; }, 42) + 2 * spin.failed;
}

// in u32 [n, 4], n = threads; out u32 [n, 4]: through loads of 16, 4, 4 and twice 2 bytes.
DEVICE void loads_once_test(const PrimitiveParams& p) {
    const u32 i = thread_of_grid();
    const u32* const in = input<u32>(p) + i * 4;
    const uint4 v = ldg_once16(in);
    u32* const out = output<u32>(p) + i * 4;
    out[0] = v.x ^ v.w;
    out[1] = ldg_once4(in + 1);
    out[2] = ldg_once4(in + 2);
    out[3] = u32(ldg_once2(in + 3)) | u32(ldg_once2(reinterpret_cast<const u16*>(in + 3) + 1)) << 16;
}

// Two groups of copies, the second with 0 to 16 and 0 to 4 bytes a thread. in u8 [64 * 36]; out the same; as much
// shared.
DEVICE void cp_async_test(const PrimitiveParams& p) {
    SHARED(u8, tile);
    const u32 i = threadIdx.x;
    const u8* const in = input<u8>(p);
    u8* const second = tile + 64 * 16;
    u8* const third = second + 64 * 16;
    cp_async16(tile + i * 16, in + i * 16);
    cp_async_commit();
    cp_async16(second + i * 16, in + (64 + i) * 16, i % 17);
    cp_async4(third + i * 4, in + 128 * 16 + i * 4, i % 5);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    for (u32 k = 0; k < 16; ++k) output<u8>(p)[i * 16 + k] = tile[(63 - i) * 16 + k];
    cp_async_wait<0>();
    __syncthreads();
    for (u32 k = i; k < 64 * 20; k += 64) output<u8>(p)[64 * 16 + k] = second[k];
}

// in u16 [32 rows, 8], 16 bytes a row; out0 u32 [32, 4], out1 the same transposed; 512 bytes shared.
DEVICE void ldmatrix_test(const PrimitiveParams& p) {
    SHARED(uint4, rows);
    rows[threadIdx.x] = input<uint4>(p)[threadIdx.x];
    __syncwarp();
    u32 r[4];
    ldmatrix_x4(r, rows + threadIdx.x);
    for (int k = 0; k < 4; ++k) output<u32>(p)[threadIdx.x * 4 + k] = r[k];
    ldmatrix_x4_transposed(r, rows + threadIdx.x);
    for (int k = 0; k < 4; ++k) output<u32>(p, 1)[threadIdx.x * 4 + k] = r[k];
}

// in0 A E [16, 16], in1 B E [16, 8]; out0 f32 [16, 8], added to; by one warp.
template <class E> DEVICE void mma_test(const PrimitiveParams& p) {
    const u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    const u16* const a = input<u16>(p);
    const u16* const b = input<u16>(p, 1);
    auto two_of_a = [&](u32 row, u32 k) { return u32(a[row * 16 + k]) | u32(a[row * 16 + k + 1]) << 16; };
    auto two_of_b = [&](u32 k, u32 column) { return u32(b[k * 8 + column]) | u32(b[(k + 1) * 8 + column]) << 16; };
    float* const out = output<float>(p);
    float d[4] = {out[g * 8 + 2 * t], out[g * 8 + 2 * t + 1], out[(g + 8) * 8 + 2 * t], out[(g + 8) * 8 + 2 * t + 1]};
    mma_m16n8k16<E>(d, two_of_a(g, 2 * t), two_of_a(g + 8, 2 * t), two_of_a(g, 2 * t + 8), two_of_a(g + 8, 2 * t + 8),
                    two_of_b(2 * t, g), two_of_b(2 * t + 8, g));
    for (u32 k = 0; k < 4; ++k) out[(g + (k / 2) * 8) * 8 + 2 * t + k % 2] = d[k];
}

// in0 A f32 [16, 8], in1 B f32 [8, 8], rounded here; out0 f32 [16, 8], added to; by one warp.
DEVICE void mma_tf32_test(const PrimitiveParams& p) {
    const u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    const u32* const a = input<u32>(p);
    const u32* const b = input<u32>(p, 1);
    float* const out = output<float>(p);
    float d[4] = {out[g * 8 + 2 * t], out[g * 8 + 2 * t + 1], out[(g + 8) * 8 + 2 * t], out[(g + 8) * 8 + 2 * t + 1]};
    mma_m16n8k8_tf32(d, round_tf32(a[g * 8 + t]), round_tf32(a[(g + 8) * 8 + t]), round_tf32(a[g * 8 + t + 4]),
                     round_tf32(a[(g + 8) * 8 + t + 4]), round_tf32(b[t * 8 + g]), round_tf32(b[(t + 4) * 8 + g]));
    for (u32 k = 0; k < 4; ++k) out[(g + (k / 2) * 8) * 8 + 2 * t + k % 2] = d[k];
}

// Clusters of 4 blocks of 64. in f32 [threads]; out0 f32 [threads, 2]: what the next block holds, what the one before
// sent; out1 u32 [blocks, 2]: rank and size; 512 bytes shared.
DEVICE void cluster_test(const PrimitiveParams& p) {
    SHARED(float, held);
    float* const sent = held + 64;
    const u32 i = threadIdx.x, rank = cluster_rank(), size = cluster_size(), next = (rank + 1) % size;
    held[i] = input<float>(p)[thread_of_grid()];
    cluster_arrive();
    cluster_wait();
    output<float>(p)[thread_of_grid() * 2] = ld_cluster(map_cluster(held + i, next));
    st_cluster(map_cluster(sent, next) + 4 * (63 - i), held[i] + 0.5f);
    cluster_arrive();
    cluster_wait();
    output<float>(p)[thread_of_grid() * 2 + 1] = sent[i];
    if (i == 0) {
        output<u32>(p, 1)[blockIdx.x * 2] = rank;
        output<u32>(p, 1)[blockIdx.x * 2 + 1] = size;
    }
}

// A ring of the 4 blocks of a cluster: for n steps each adds 1 to what it has and passes it on, 28 bytes a thread by
// st.async, into two buffers by turns, and says when a buffer may be filled again. in u32 [blocks * 64, 7]; out the
// same; 28 * 128 + 512 + 32 bytes shared.
DEVICE void store_async_test(const PrimitiveParams& p) {
    SHARED(u8, buffers);
    // Of each of two buffers: 64 times 16 bytes, 64 times 8, 64 times 4; then two barriers `full` and two `empty`.
    constexpr u32 BYTES = 64 * 28;
    u64* const full = reinterpret_cast<u64*>(buffers + 2 * BYTES);
    u64* const empty = full + 2;
    const u32 i = threadIdx.x, rank = cluster_rank(), size = cluster_size();
    const u32 next = (rank + 1) % size, before = (rank + size - 1) % size;
    u32 v[7];
    for (u32 k = 0; k < 7; ++k) v[k] = input<u32>(p)[thread_of_grid() * 7 + k];
    if (i == 0) {
        for (u32 k = 0; k < 2; ++k) {
            mbarrier_init(full + k, 1);
            mbarrier_init(empty + k, 64);
        }
        mbarrier_init_fence();
    }
    cluster_arrive_relaxed();
    cluster_wait();
    Spin spin(p.flags, 1u << 22);
    for (u32 step = 0; step < p.n; ++step) {
        const u32 b = step % 2, parity = step / 2 % 2;
        u8* const buffer = buffers + b * BYTES;
        if (i == 0) mbarrier_arrive_expect(full + b, BYTES);
        // The block after must have read what was in its buffer two steps ago.
        if (step >= 2) spin.until([&] { return mbarrier_test_cluster(empty + b, parity ^ 1); }, 1);
        const ClusterAddress to = map_cluster(buffer, next), bar = map_cluster(full + b, next);
        st_async16(to + 16 * i, make_uint4(v[0] + 1, v[1] + 1, v[2] + 1, v[3] + 1), bar);
        st_async8(to + 64 * 16 + 8 * i, make_uint2(v[4] + 1, v[5] + 1), bar);
        st_async4(to + 64 * 24 + 4 * i, v[6] + 1, bar);
        spin.until([&] { return mbarrier_test(full + b, parity); }, 2);
        const u32* const words = reinterpret_cast<const u32*>(buffer);
        for (u32 k = 0; k < 4; ++k) v[k] = words[4 * i + k];
        for (u32 k = 0; k < 2; ++k) v[4 + k] = words[64 * 4 + 2 * i + k];
        v[6] = words[64 * 6 + i];
        mbarrier_arrive_cluster(map_cluster(empty + b, before));
    }
    for (u32 k = 0; k < 7; ++k) output<u32>(p)[thread_of_grid() * 7 + k] = v[k];
    cluster_arrive();  // no block returns while others still store to it
    cluster_wait();
}

// ---- for the host's engine alone ------------------------------------------------------------------------------------

// n sums over the block, with one buffer for the partial sums. mode 1 lacks the barrier after reading: a warp may
// overwrite its partial sum while another has not read it. in f32 [n, 128]; out f32 [n, 128]; 16 bytes shared.
DEVICE void reduction_test(const PrimitiveParams& p) {
    SHARED(float, partial);
    for (u32 t = 0; t < p.n; ++t) {
        const float sum = warp_sum(input<float>(p)[t * 128 + threadIdx.x]);
        if (lane_id() == 0) partial[warp_id()] = sum;
        __syncthreads();
        output<float>(p)[t * 128 + threadIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
        if (p.mode != 1) __syncthreads();
    }
}

// The order in which threads come by: out u32 [threads] of the grid; flags [1] starts as 0.
DEVICE void order_test(const PrimitiveParams& p) {
    output<u32>(p)[atomic_add_acq_rel(p.flags, 1)] = thread_of_grid();
}

// A mistake for each mode; never to be launched on a GPU.
DEVICE void misuse_test(const PrimitiveParams& p) {
    SHARED(float, shared);
    const u32 i = threadIdx.x, lane = lane_id();
    switch (p.mode) {
        case 0:  // no mistake
            break;
        case 1:  // a barrier that only some threads reach, while the others wait for them elsewhere
            if (i < 32) __syncthreads();
            else block_barrier(1, 64);
            break;
        case 2: {  // a wait that nobody ends, without a bound
            Spin spin(nullptr, 0xffffffffu);
            spin.until([&] { return false; }, 1);
            break;
        }
        case 3:  // a lane is missing from a shuffle
            if (lane != 7) output<u32>(p)[i] = __shfl_sync(FULL_WARP, i, 0);
            else __syncthreads();
            break;
        case 4:  // a shuffle from a lane outside the mask
            if (lane < 16) output<u32>(p)[i] = __shfl_sync(0x0000ffffu, i, 20);
            break;
        case 5:  // a lane outside its own mask
            output<u32>(p)[i] = __shfl_sync(0x0000ffffu, i, 0);
            break;
        case 6:  // two different operations of a warp meet
            if (lane < 5) __syncwarp();
            else output<u32>(p)[i] = __ballot_sync(FULL_WARP, 1);
            break;
        case 7:  // copies that are never waited for
            cp_async4(shared + i, input<u32>(p) + i);
            break;
        case 8:  // a copy to an address that is not aligned
            cp_async16(shared + 1, input<u32>(p));
            break;
        case 9:  // a barrier with two numbers of threads
            block_barrier(1, i < 32 ? 64 : 96);
            break;
#if HAS_CLUSTER
        case 10:  // an mbarrier that nobody initialised
            mbarrier_arrive(reinterpret_cast<u64*>(shared));
            break;
        case 11:  // more arrivals than the mbarrier's count
            if (i == 0) mbarrier_init(reinterpret_cast<u64*>(shared), 1);
            __syncthreads();
            if (i == 0) {
                mbarrier_arrive_expect(reinterpret_cast<u64*>(shared), 4);
                mbarrier_arrive(reinterpret_cast<u64*>(shared));
            }
            break;
        case 12:  // a store to a block that has returned
            if (cluster_rank() == 0) {
                Spin spin(nullptr, 16);
                spin.until([&] { return false; }, 1);
                st_cluster(map_cluster(shared, 1), 1.0f);
            }
            break;
        case 13:  // an arrival without a wait
            cluster_arrive();
            break;
        case 14:  // a rank that there is not
            st_cluster(map_cluster(shared, 5), 1.0f);
            break;
#endif
        default: break;
    }
}
