// What the building blocks of a persistent recurrent kernel cost on a GPU: barriers, hand-offs between blocks, the
// exchange of h, arithmetic, launches. These numbers set the borders between the kernel families.
//
//   nvcc -O3 -std=c++17 -gencode arch=compute_90a,code=sm_90a latencies.cu -o latencies
//   ./latencies [GROUP ...]        groups: barriers handoff exchange rates launches; all unless given
//
// Output: one JSON object a line; the first says what was measured on. `clk` is the median of 7 runs in SM clocks
// (clock64 of one block) for one round, `best` and `worst` the extremes, `ns` the median at the clock rate measured in
// the same run. Every wait on the device is bounded: one that does not end gives `"error":"a wait did not end"` instead
// of a hang. An error is in the line that it belongs to; after one that loses the context the rest of the group is not
// measured, and the exit status is 1.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

using u32 = uint32_t;
using u64 = unsigned long long;
using i64 = long long;

constexpr i64 WAIT_CLOCKS = 100'000'000;  // about 50 ms
constexpr int RUNS = 7;

/// What a kernel reports.
struct Report {
    i64 clocks;
    int gave_up;
};

// ---- PTX
// --------------------------------------------------------------------------------------------------------------

__device__ u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

__device__ u32 load_relaxed(const u32* p) {
    u32 v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
__device__ u32 load_acquire(const u32* p) {
    u32 v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
__device__ void store_relaxed(u32* p, u32 v) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
__device__ void store_release(u32* p, u32 v) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
__device__ void add_release(u32* p, u32 v) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
__device__ uint4 load_relaxed(const uint4* p) {
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
template <int BYTES>
__device__ void store_relaxed(char* p, u32 v) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "");
    if constexpr (BYTES == 4) store_relaxed(reinterpret_cast<u32*>(p), v);
    else if constexpr (BYTES == 8)
        asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %1};" ::"l"(p), "r"(v) : "memory");
    else asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %1, %1, %1};" ::"l"(p), "r"(v) : "memory");
}
__device__ void prefetch_l2(const char* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p) : "memory"); }

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
__device__ u32 cluster_rank() {
    u32 r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
__device__ u32 cluster_size() {
    u32 n;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
    return n;
}
/// The address in the shared memory of block `rank` of the cluster.
__device__ u32 map_shared(u32 address, u32 rank) {
    u32 r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(address), "r"(rank));
    return r;
}
__device__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// Orders nothing: without the fences that the other form compiles to.
__device__ void cluster_barrier_relaxed() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
}
__device__ void mbarrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ void mbarrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Acquires at the scope of the block, as the recurrent kernels do: what st.async has brought stands in the block's own
/// shared memory.
__device__ bool mbarrier_wait(u32 barrier, u32 parity) {
    for (i64 start = clock64(); clock64() - start < WAIT_CLOCKS;) {
        u32 done;
        asm volatile(
            "{\n\t.reg .pred p;\n\t"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
            "selp.u32 %0, 1, 0, p;\n\t}"
            : "=r"(done)
            : "r"(barrier), "r"(parity)
            : "memory");
        if (done) return true;
    }
    return false;
}
/// Stores BYTES bytes into a block's shared memory, counted by a barrier of that block.
template <int BYTES>
__device__ void store_async(u32 to, u32 barrier, u32 v) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "");
    if constexpr (BYTES == 4)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to), "r"(v),
                     "r"(barrier)
                     : "memory");
    else if constexpr (BYTES == 8)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %1}, [%2];" ::"r"(to),
                     "r"(v), "r"(barrier)
                     : "memory");
    else
        asm volatile(
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %1, %1, %1}, [%2];" ::"r"(to),
            "r"(v), "r"(barrier)
            : "memory");
}
#define CLUSTERS 1
#else
#define CLUSTERS 0  // the kernels below are empty, and never launched
#endif

/// Ends a kernel: thread 0 of block 0 reports the time since `start`, divided by `parts`.
__device__ void report(Report* out, i64 start, int parts = 1) {
    if (threadIdx.x == 0 && blockIdx.x == 0) out->clocks = (clock64() - start) / parts;
}

// ---- barriers
// ---------------------------------------------------------------------------------------------------------

__global__ void block_barrier(Report* out, int rounds) {
    __syncthreads();
    i64 start = clock64();
    for (int i = 0; i < rounds; ++i) __syncthreads();
    report(out, start);
}

template <bool RELAXED>
__global__ void cluster_barriers(Report* out, int rounds) {
#if CLUSTERS
    cluster_barrier();
    i64 start = clock64();
    for (int i = 0; i < rounds; ++i) {
        if (RELAXED) cluster_barrier_relaxed();
        else cluster_barrier();
    }
    report(out, start);
    cluster_barrier();
#endif
}

/// All blocks add to one counter and wait until every block has: nothing to reset, since the target grows.
__global__ void grid_barrier(Report* out, int rounds, u32* counter) {
    i64 start = 0;
    bool alive = true;
    constexpr int WARM = 8;
    for (int i = 0; i < rounds + WARM; ++i) {
        if (i == WARM) start = clock64();
        __syncthreads();
        if (threadIdx.x == 0 && alive) {
            add_release(counter, 1);
            u32 target = static_cast<u32>(i + 1) * gridDim.x;
            for (i64 since = clock64(); load_acquire(counter) < target;) {
                if (clock64() - since > WAIT_CLOCKS) {
                    out->gave_up = 1;
                    alive = false;
                    break;
                }
            }
        }
        __syncthreads();
    }
    report(out, start);
}

// ---- hand-off of one word, there and back; half of it is reported
// --------------------------------------------------------

template <bool ORDERED>
__device__ bool wait_for(const u32* flag, u32 value) {
    for (i64 since = clock64(); (ORDERED ? load_acquire(flag) : load_relaxed(flag)) < value;) {
        if (clock64() - since > WAIT_CLOCKS) return false;
    }
    return true;
}
template <bool ORDERED>
__device__ void send(u32* flag, u32 value) {
    if (ORDERED) store_release(flag, value);
    else store_relaxed(flag, value);
}

/// Through L2, between block 0 and block `partner`; 256 bytes between the two words. Relaxed is what a sentinel costs,
/// where the word is the data; release and acquire what a flag costs that publishes other data.
template <bool ORDERED>
__global__ void handoff_l2(Report* out, int rounds, u32* words, int partner) {
    if (threadIdx.x != 0 || (blockIdx.x != 0 && blockIdx.x != partner)) return;
    bool first = blockIdx.x == 0;
    u32 *mine = words + (first ? 0 : 64), *theirs = words + (first ? 64 : 0);
    i64 start = clock64();
    for (int i = 1; i <= rounds; ++i) {
        if (first) send<ORDERED>(theirs, i);
        if (!wait_for<ORDERED>(mine, i)) {
            out->gave_up = 1;
            return;
        }
        if (!first) send<ORDERED>(theirs, i);
    }
    report(out, start, 2);
}

/// Through distributed shared memory, between the first and the last block of a cluster: st.async of BYTES bytes and a
/// remote mbarrier.
template <int BYTES>
__global__ void handoff_async(Report* out, int rounds) {
#if CLUSTERS
    __shared__ uint4 word;
    __shared__ u64 barrier;
    u32 rank = cluster_rank(), last = cluster_size() - 1, here = shared_address(&barrier);
    if (threadIdx.x == 0) {
        mbarrier_init(here, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_barrier();
    if (threadIdx.x == 0 && (rank == 0 || rank == last)) {
        u32 peer = last - rank;
        u32 to = map_shared(shared_address(&word), peer), there = map_shared(here, peer);
        i64 start = clock64();
        for (int i = 0; i < rounds; ++i) {
            if (rank == 0) store_async<BYTES>(to, there, i);
            mbarrier_expect(here, BYTES);
            if (!mbarrier_wait(here, i & 1)) {
                out->gave_up = 1;
                break;
            }
            if (rank != 0) store_async<BYTES>(to, there, i);
        }
        report(out, start, 2);
    }
    __syncwarp();
    cluster_barrier();
#endif
}

/// Dependent loads from the last block's shared memory; from the own where the cluster has one block.
__global__ void shared_load(Report* out, int rounds) {
#if CLUSTERS
    __shared__ u32 chain[64];
    if (threadIdx.x < 64) chain[threadIdx.x] = (threadIdx.x + 17) % 64;
    cluster_barrier();
    if (threadIdx.x == 0 && cluster_rank() == 0) {
        u32 base = map_shared(shared_address(chain), cluster_size() - 1), at = 0;
        i64 start = clock64();
        for (int i = 0; i < rounds; ++i) {
            asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(at) : "r"(base + at * 4) : "memory");
        }
        report(out, start);
        if (at >= 64) out->gave_up = 1;  // keeps the chain
    }
    __syncwarp();
    cluster_barrier();
#endif
}

// ---- the exchange of h: every block owns a part of `vectors` 16-byte vectors and needs all of them in its shared
// memory ----

/// Through L2, by stores of BYTES bytes. A slot for every step, filled with ones beforehand; readers poll the data itself.
/// AHEAD: each store first brings its place of the slot after the next into L2, as the recurrent kernels do.
template <int BYTES, bool AHEAD>
__global__ void exchange_l2(Report* out, int steps, uint4* slots, int vectors) {
    extern __shared__ uint4 h[];
    int part = vectors / gridDim.x * 16, first = blockIdx.x * part;
    i64 start = clock64();
    for (int t = 0; t < steps; ++t) {
        uint4* slot = slots + static_cast<size_t>(t) * vectors;
        char* to = reinterpret_cast<char*>(slot) + first;
        for (int byte = threadIdx.x * BYTES; byte < part; byte += blockDim.x * BYTES) {
            if (AHEAD && t + 2 < steps) prefetch_l2(to + byte + 2 * 16 * static_cast<size_t>(vectors));
            store_relaxed<BYTES>(to + byte, static_cast<u32>(t));
        }
        for (int v = threadIdx.x; v < vectors; v += blockDim.x) {
            uint4 x = load_relaxed(slot + v);
            for (i64 since = clock64(); x.x == ~0u || x.y == ~0u || x.z == ~0u || x.w == ~0u;
                 x = load_relaxed(slot + v)) {
                if (clock64() - since > WAIT_CLOCKS) {
                    out->gave_up = 1;
                    return;
                }  // barriers do not wait for the exited
            }
            h[v] = x;
        }
        __syncthreads();
    }
    report(out, start);
}

/// Through the cluster: st.async of BYTES bytes into every block, one mbarrier for each of two buffers.
template <int BYTES>
__global__ void exchange_async(Report* out, int steps, int vectors) {
#if CLUSTERS
    extern __shared__ uint4 h[];
    __shared__ u64 barriers[2];
    int blocks = cluster_size(), part = vectors / blocks, first = cluster_rank() * part;
    const int stores = part * 16 / BYTES;  // into one block
    if (threadIdx.x == 0) {
        for (u64& barrier : barriers) mbarrier_init(shared_address(&barrier), 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_barrier();
    i64 start = clock64();
    for (int t = 0; t < steps; ++t) {
        u32 barrier = shared_address(&barriers[t & 1]), buffer = shared_address(h + (t & 1) * vectors);
        if (threadIdx.x == 0) mbarrier_expect(barrier, vectors * 16);
        for (int i = threadIdx.x; i < stores * blocks; i += blockDim.x) {
            u32 peer = i / stores, at = buffer + first * 16 + i % stores * BYTES;
            store_async<BYTES>(map_shared(at, peer), map_shared(barrier, peer), t);
        }
        if (!mbarrier_wait(barrier, (t >> 1) & 1)) {
            out->gave_up = 1;
            break;
        }  // then for every thread of the block
        __syncthreads();
    }
    report(out, start);
    cluster_barrier();
#endif
}

/// Through the cluster: plain remote stores and a cluster barrier that orders them.
__global__ void exchange_barrier(Report* out, int steps, int vectors) {
#if CLUSTERS
    extern __shared__ uint4 h[];
    int blocks = cluster_size(), part = vectors / blocks, first = cluster_rank() * part;
    cluster_barrier();
    i64 start = clock64();
    for (int t = 0; t < steps; ++t) {
        u32 buffer = shared_address(h + (t & 1) * vectors);
        for (int i = threadIdx.x; i < part * blocks; i += blockDim.x) {
            u32 peer = i / part, v = first + i % part;
            asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(map_shared(buffer + v * 16, peer)),
                         "r"(t)
                         : "memory");
        }
        cluster_barrier();
    }
    report(out, start);
    cluster_barrier();
#endif
}

// ---- rates and latencies of arithmetic
// ------------------------------------------------------------------------------------

/// CHAINS independent bf16 products a warp; with one, the latency.
template <int CHAINS>
__global__ void mma(Report* out, int rounds) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    float c[CHAINS][4];
    for (auto& tile : c)
        for (float& x : tile) x = threadIdx.x;
    u32 a = threadIdx.x, b = threadIdx.x + 1;
    __syncthreads();
    i64 start = clock64();
    for (int i = 0; i < rounds; ++i) {
#pragma unroll
        for (auto& tile : c) {
            asm volatile(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, {%5, %5}, "
                "{%0, %1, %2, %3};"
                : "+f"(tile[0]), "+f"(tile[1]), "+f"(tile[2]), "+f"(tile[3])
                : "r"(a), "r"(b));
        }
    }
    __syncthreads();
    report(out, start);
#endif
}

enum class Op { fma, ex2, rcp, tanh };
template <Op OP>
__device__ void apply(float& x) {
    if (OP == Op::fma) asm volatile("fma.rn.f32 %0, %0, %0, %0;" : "+f"(x));
    if (OP == Op::ex2) asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
    if (OP == Op::rcp) asm volatile("rcp.approx.ftz.f32 %0, %0;" : "+f"(x));
    if (OP == Op::tanh) asm volatile("tanh.approx.f32 %0, %0;" : "+f"(x));
}
template <Op OP, int CHAINS>
__global__ void arithmetic(Report* out, int rounds) {
    float x[CHAINS];
    for (int j = 0; j < CHAINS; ++j) x[j] = 1e-3f * (threadIdx.x + j);
    __syncthreads();
    i64 start = clock64();
    for (int i = 0; i < rounds; ++i) {
#pragma unroll
        for (float& value : x) apply<OP>(value);
    }
    __syncthreads();
    report(out, start);
}

/// Eight loads of 16 bytes a thread and round, without bank conflicts.
__global__ void shared_read(Report* out, int rounds) {
    __shared__ float4 values[1024];
    for (int i = threadIdx.x; i < 1024; i += blockDim.x) values[i] = make_float4(1, 2, 3, 4);
    __syncthreads();
    u32 base = shared_address(values);
    i64 start = clock64();
    for (int i = 0; i < rounds; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            [[maybe_unused]] float4 v;
            asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                         : "r"(base + ((threadIdx.x + j * 32) % 1024) * 16)
                         : "memory");
        }
    }
    __syncthreads();
    report(out, start);
}

__global__ void nothing() {}

__global__ void clock_rate(i64* out) {
    i64 clocks = clock64(), begin, end;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do { asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(end)); } while (end - begin < 50'000'000);
    out[0] = clock64() - clocks;
    out[1] = end - begin;
}

// ---- host
// -----------------------------------------------------------------------------------------------------------------

static Report* device_report;
static double gigahertz;
static bool failed, lost;

using Fields = std::string;
static Fields field(const char* name, long value) { return ",\"" + std::string(name) + "\":" + std::to_string(value); }

static void say_error(const char* what, const Fields& fields, const char* error) {
    printf("{\"what\":\"%s\"%s,\"error\":\"%s\"}\n", what, fields.c_str(), error);
    fflush(stdout);
    failed = true;
}

/// Whether a call worked; says so if not, and whether anything can still be measured.
static bool check(const char* what, const Fields& fields, cudaError_t error) {
    if (error == cudaSuccess) return true;
    say_error(what, fields, cudaGetErrorString(error));
    cudaGetLastError();
    lost = cudaDeviceSynchronize() != cudaSuccess;
    return false;
}

struct Geometry {
    int blocks, threads, cluster = 1;
    bool cooperative = false;
    size_t shared = 0;
};

/// Runs a kernel RUNS times after one to warm up, and prints the clocks of one of its `rounds`. `prepare` comes before
/// each.
template <class Prepare, class... Params, class... Args>
static void measure(const char* what, const Fields& fields, double rounds, const Geometry& geometry, Prepare prepare,
                    void (*kernel)(Report*, Params...), Args... args) {
    if (lost) return;
    if (geometry.shared > 48 * 1024 &&
        !check(what, fields,
               cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, geometry.shared)))
        return;
    if (geometry.cluster > 8 &&
        !check(what, fields, cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1)))
        return;
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = geometry.blocks;
    config.blockDim = geometry.threads;
    config.dynamicSmemBytes = geometry.shared;
    config.attrs = attributes;
    if (geometry.cooperative) {
        attributes[config.numAttrs].id = cudaLaunchAttributeCooperative;
        attributes[config.numAttrs++].val.cooperative = 1;
    }
    if (geometry.cluster > 1) {
        attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attributes[config.numAttrs++].val.clusterDim = {static_cast<unsigned>(geometry.cluster), 1, 1};
    }
    std::vector<double> clocks;
    for (int run = 0; run <= RUNS; ++run) {
        Report got = {};
        prepare();
        if (!check(what, fields, cudaMemset(device_report, 0, sizeof got))) return;
        if (!check(what, fields, cudaLaunchKernelEx(&config, kernel, device_report, static_cast<Params>(args)...)))
            return;
        if (!check(what, fields, cudaMemcpy(&got, device_report, sizeof got, cudaMemcpyDeviceToHost))) return;
        if (got.gave_up) return say_error(what, fields, "a wait did not end");
        if (run > 0) clocks.push_back(got.clocks / rounds);
    }
    std::sort(clocks.begin(), clocks.end());
    double median = clocks[RUNS / 2];
    printf("{\"what\":\"%s\"%s,\"clk\":%.2f,\"best\":%.2f,\"worst\":%.2f,\"ns\":%.2f}\n", what, fields.c_str(), median,
           clocks.front(), clocks.back(), median / gigahertz);
    fflush(stdout);
}
static void no_preparation() {}

int main(int count, char** groups) {
    auto wanted = [&](const char* group) {
        return count < 2 || std::any_of(groups + 1, groups + count, [&](const char* g) { return !strcmp(g, group); });
    };
    for (int i = 1; i < count; ++i) {
        const char* known[] = {"barriers", "handoff", "exchange", "rates", "launches"};
        if (std::none_of(std::begin(known), std::end(known), [&](const char* g) { return !strcmp(g, groups[i]); })) {
            fprintf(stderr, "unknown group %s; there are barriers, handoff, exchange, rates, launches\n", groups[i]);
            return 2;
        }
    }
    cudaDeviceProp gpu;
    if (!check("device", "", cudaGetDeviceProperties(&gpu, 0))) return 1;
    i64* rate;
    u32* words;
    constexpr size_t WORDS_BYTES = 4096;
    if (!check("memory", "", cudaMalloc(&rate, 16)) ||
        !check("memory", "", cudaMalloc(&device_report, sizeof(Report))) ||
        !check("memory", "", cudaMalloc(&words, WORDS_BYTES)))
        return 1;
    clock_rate<<<1, 1>>>(rate);
    i64 clocks[2];
    if (!check("clock_rate", "", cudaMemcpy(clocks, rate, 16, cudaMemcpyDeviceToHost))) return 1;
    gigahertz = static_cast<double>(clocks[0]) / clocks[1];
    printf("{\"gpu\":\"%s\",\"compute\":%d,\"sms\":%d,\"l2_mib\":%.0f,\"ghz\":%.3f,\"runs\":%d}\n", gpu.name,
           gpu.major * 10 + gpu.minor, gpu.multiProcessorCount, gpu.l2CacheSize / 1048576.0, gigahertz, RUNS);
    fflush(stdout);

    const int sms = gpu.multiProcessorCount;
    const bool clusters = gpu.major >= 9;
    auto clear_words = [&] { cudaMemset(words, 0, WORDS_BYTES); };
    auto cluster = [](int blocks, int threads, size_t shared = 0) {
        return Geometry{blocks, threads, blocks, false, shared};
    };
    auto grid = [](int blocks, int threads, size_t shared = 0) { return Geometry{blocks, threads, 1, true, shared}; };
    if (!clusters) fprintf(stderr, "no clusters before compute capability 9.0: what needs them is left out\n");

    if (wanted("barriers")) {
        for (int threads : {32, 128, 256, 384, 512, 1024}) {
            measure("block_barrier", field("threads", threads), 10000, {1, threads}, no_preparation, block_barrier,
                    10000);
        }
        for (int blocks : {2, 4, 8, 16})
            for (int threads : {128, 256, 512})
                if (clusters) {
                    Fields f = field("blocks", blocks) + field("threads", threads);
                    measure("cluster_barrier", f, 5000, cluster(blocks, threads), no_preparation,
                            cluster_barriers<false>, 5000);
                    measure("cluster_barrier_relaxed", f, 5000, cluster(blocks, threads), no_preparation,
                            cluster_barriers<true>, 5000);
                }
        for (int blocks : {2, 8, 16, 32, 64, 128, sms})
            if (blocks <= sms) {
                Fields f = field("blocks", blocks) + field("threads", 256);
                measure("grid_barrier", f, 2000, grid(blocks, 256), clear_words, grid_barrier, 2000, words);
            }
    }
    if (wanted("handoff")) {
        for (int partner : {1, 2, 17, 33, 65, 100, sms - 1})
            if (partner < sms) {
                Fields f = field("partner", partner);
                measure("handoff_l2_sentinel", f, 5000, grid(sms, 32), clear_words, handoff_l2<false>, 5000, words,
                        partner);
                measure("handoff_l2_flag", f, 5000, grid(sms, 32), clear_words, handoff_l2<true>, 5000, words, partner);
            }
        for (int blocks : {2, 4, 8, 16})
            if (clusters) {
                auto handoff = [&](int bytes, auto kernel) {
                    measure("handoff_cluster_async", field("blocks", blocks) + field("store_bytes", bytes), 5000,
                            cluster(blocks, 32), no_preparation, kernel, 5000);
                };
                handoff(4, handoff_async<4>);
                handoff(8, handoff_async<8>);
                handoff(16, handoff_async<16>);
            }
        for (int blocks : {1, 2, 4, 8, 16})
            if (clusters) {
                measure("shared_load", field("blocks", blocks), 5000, cluster(blocks, 64), no_preparation, shared_load,
                        5000);
            }
    }
    if (wanted("exchange")) {
        for (int bytes : {512, 2048, 8192, 16384, 32768, 65536})
            for (int blocks : {2, 4, 8, 16})
                if (clusters) {
                    int vectors = bytes / 16;
                    Fields f = field("bytes", bytes) + field("blocks", blocks);
                    Geometry geometry = cluster(blocks, 256, 2 * bytes);
                    auto exchange = [&](int store, auto kernel) {
                        measure("exchange_cluster_async", f + field("store_bytes", store), 1000, geometry,
                                no_preparation, kernel, 1000, vectors);
                    };
                    exchange(4, exchange_async<4>);
                    exchange(8, exchange_async<8>);
                    exchange(16, exchange_async<16>);
                    measure("exchange_cluster_barrier", f, 1000, geometry, no_preparation, exchange_barrier, 1000,
                            vectors);
                }
        constexpr int STEPS = 500, MOST = 131072;
        uint4* slots;
        if (check("exchange_l2_sentinel", "", cudaMalloc(&slots, static_cast<size_t>(STEPS) * MOST))) {
            for (int bytes : {2048, 8192, 32768, 65536, MOST})
                for (int blocks : {4, 16, 32, 64, 128}) {
                    if (blocks > sms || bytes / 16 < blocks || static_cast<size_t>(bytes) > gpu.sharedMemPerBlockOptin)
                        continue;
                    auto fill = [&] { cudaMemset(slots, 0xff, static_cast<size_t>(STEPS) * bytes); };
                    Fields f = field("bytes", bytes) + field("blocks", blocks);
                    auto exchange = [&](const char* what, int store, auto kernel) {
                        measure(what, f + field("store_bytes", store), STEPS, grid(blocks, 256, bytes), fill, kernel,
                                STEPS, slots, bytes / 16);
                    };
                    exchange("exchange_l2_sentinel", 4, exchange_l2<4, false>);
                    exchange("exchange_l2_sentinel", 8, exchange_l2<8, false>);
                    exchange("exchange_l2_sentinel", 16, exchange_l2<16, false>);
                    exchange("exchange_l2_sentinel_ahead", 4, exchange_l2<4, true>);
                    exchange("exchange_l2_sentinel_ahead", 16, exchange_l2<16, true>);
                }
            cudaFree(slots);
        }
    }
    if (wanted("rates")) {
        // Clocks of one warp-wide operation on one SM that runs nothing else.
        for (int threads : {128, 256, 512}) {
            Fields f = field("threads", threads);
            double warps = threads / 32;
            if (gpu.major >= 8)
                measure("mma_bf16_m16n8k16", f, 2000 * 8 * warps, {1, threads}, no_preparation, mma<8>, 2000);
            measure("ffma", f, 2000 * 16 * warps, {1, threads}, no_preparation, arithmetic<Op::fma, 16>, 2000);
            measure("ex2", f, 2000 * 8 * warps, {1, threads}, no_preparation, arithmetic<Op::ex2, 8>, 2000);
            measure("rcp", f, 2000 * 8 * warps, {1, threads}, no_preparation, arithmetic<Op::rcp, 8>, 2000);
            measure("tanh_approx", f, 2000 * 8 * warps, {1, threads}, no_preparation, arithmetic<Op::tanh, 8>, 2000);
            measure("shared_read_512_bytes", f, 2000 * 8 * warps, {1, threads}, no_preparation, shared_read, 2000);
        }
        if (gpu.major >= 8) measure("mma_bf16_latency", "", 5000, {1, 32}, no_preparation, mma<1>, 5000);
        measure("ffma_latency", "", 5000, {1, 32}, no_preparation, arithmetic<Op::fma, 1>, 5000);
        measure("ex2_latency", "", 5000, {1, 32}, no_preparation, arithmetic<Op::ex2, 1>, 5000);
        measure("rcp_latency", "", 5000, {1, 32}, no_preparation, arithmetic<Op::rcp, 1>, 5000);
        measure("tanh_approx_latency", "", 5000, {1, 32}, no_preparation, arithmetic<Op::tanh, 1>, 5000);
    }
    if (wanted("launches") && !lost) {
        constexpr int LAUNCHES = 1000;
        cudaStream_t stream;
        cudaEvent_t begin, end;
        cudaGraph_t graph;
        cudaGraphExec_t executable;
        auto launch_all = [&] {
            for (int i = 0; i < LAUNCHES; ++i) nothing<<<1, 32, 0, stream>>>();
            return cudaGetLastError();
        };
        bool ready = check("launches", "", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)) &&
                     check("launches", "", cudaEventCreate(&begin)) && check("launches", "", cudaEventCreate(&end)) &&
                     check("launches", "", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal)) &&
                     check("launches", "", launch_all()) &&
                     check("launches", "", cudaStreamEndCapture(stream, &graph)) &&
                     check("launches", "", cudaGraphInstantiate(&executable, graph, 0));
        auto time_launches = [&](const char* what, auto work) {
            std::vector<double> ns;
            for (int run = 0; run <= RUNS; ++run) {
                float ms = 0;
                if (!check(what, "", cudaEventRecord(begin, stream)) || !check(what, "", work()) ||
                    !check(what, "", cudaEventRecord(end, stream)) || !check(what, "", cudaEventSynchronize(end)) ||
                    !check(what, "", cudaEventElapsedTime(&ms, begin, end)))
                    return;
                if (run > 0) ns.push_back(ms * 1e6 / LAUNCHES);
            }
            std::sort(ns.begin(), ns.end());
            printf("{\"what\":\"%s\",\"best_ns\":%.1f,\"worst_ns\":%.1f,\"ns\":%.1f}\n", what, ns.front(), ns.back(),
                   ns[RUNS / 2]);
        };
        if (ready) {
            time_launches("stream_launch", launch_all);
            time_launches("graph_node", [&] { return cudaGraphLaunch(executable, stream); });
        }
    }
    puts(failed ? "{\"done\":true,\"errors\":true}" : "{\"done\":true,\"errors\":false}");
    return failed ? 1 : 0;
}
