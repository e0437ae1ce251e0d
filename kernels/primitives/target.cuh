// primitives/target.cuh - device or host, what the target has, sizes of integers, entry points, the number of a thread.
#pragma once

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)
#define ON_DEVICE 1
#define ARCH __CUDA_ARCH__
#else
#define ON_DEVICE 0
#include "host/cuda_host.h"
// Which compute capability's code path the host version takes, times ten.
#ifndef FUSED_RNN_HOST_COMPUTE
#define FUSED_RNN_HOST_COMPUTE 90
#endif
#define ARCH (FUSED_RNN_HOST_COMPUTE * 10)
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;
static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(void*) == 8, "mirrored sizes");

#define DEVICE __device__ __forceinline__

// An entry point: KERNEL(name, type of its parameter `p`, threads of a block, statement).
// SHARED(T, name): the block's dynamic shared memory, aligned to 128 bytes. All of it is one array: give every part its
// own offset.
#if ON_DEVICE
#define KERNEL(name, Params, threads, ...) \
    extern "C" __global__ void __launch_bounds__(threads, 1) name(const __grid_constant__ Params p) { __VA_ARGS__; }
#define SHARED(T, name)                                                 \
    extern __shared__ __align__(128) unsigned char fused_rnn_shared[];  \
    T* const name = reinterpret_cast<T*>(fused_rnn_shared)
#else
#define KERNEL(name, Params, threads, ...)                                           \
    extern "C" __attribute__((visibility("default"))) void name(const void* bytes) { \
        [[maybe_unused]] const Params& p = *static_cast<const Params*>(bytes);       \
        __VA_ARGS__;                                                                 \
    }
#define SHARED(T, name) T* const name = reinterpret_cast<T*>(host::block().shared)
#endif

// What the target has: mma.sync with 16-bit and TF32 operands, cp.async from sm_80; clusters, st.async, mbarriers over
// clusters from sm_90. For `#if` and `if constexpr`. What a target lacks is declared here but not defined, so using it
// does not link.
#define HAS_MMA_16BIT (ARCH >= 800)
#define HAS_MMA_TF32 (ARCH >= 800)
#define HAS_CP_ASYNC (ARCH >= 800)
#define HAS_CLUSTER (ARCH >= 900)

constexpr u32 FULL_WARP = 0xffffffffu;

// Hides from the compiler what is known of a value, so that it does not keep many values that derive from it in registers of their own,
// which it does with addresses in a loop.
DEVICE void hide([[maybe_unused]] u64& value) {
#if ON_DEVICE
    asm volatile("" : "+l"(value));
#endif
}

DEVICE u32 lane_id() { return threadIdx.x & 31; }
DEVICE u32 warp_id() { return threadIdx.x >> 5; }
