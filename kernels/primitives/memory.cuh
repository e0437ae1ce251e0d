// primitives/memory.cuh - access to memory: loads of weights, words that other blocks write meanwhile, copies in the background.
#pragma once
#include "primitives/target.cuh"

// ---- global memory --------------------------------------------------------------------------------------------------

// Loads that happen where they stand, through the read-only path and not kept in L1: weights that are read once, before
// a loop. Addresses aligned to the size.
DEVICE uint4 ldg_once16(const void* p) {
    uint4 v;
#if ON_DEVICE
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
#else
    v = *static_cast<const uint4*>(p);
#endif
    return v;
}
DEVICE u32 ldg_once4(const void* p) {
    u32 v;
#if ON_DEVICE
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
#else
    v = *static_cast<const u32*>(p);
#endif
    return v;
}
DEVICE u16 ldg_once2(const void* p) {
    u16 v;
#if ON_DEVICE
    asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(v) : "l"(p));
#else
    v = *static_cast<const u16*>(p);
#endif
    return v;
}

// The same where `inside`, elsewhere zero, without a branch.
DEVICE u32 ldg_once4_if(const void* p, bool inside) {
    u32 v = 0;
#if ON_DEVICE
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.global.nc.u32 %0, [%1]; }" : "+r"(v) : "l"(p), "r"(u32(inside)));
#else
    if (inside) v = *static_cast<const u32*>(p);
#endif
    return v;
}
DEVICE u16 ldg_once2_if(const void* p, bool inside) {
    u16 v = 0;
#if ON_DEVICE
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.global.nc.u16 %0, [%1]; }" : "+h"(v) : "l"(p), "r"(u32(inside)));
#else
    if (inside) v = *static_cast<const u16*>(p);
#endif
    return v;
}

// Asks for the line of an address to be brought into L2, and waits for nothing. The host has no caches.
DEVICE void prefetch_l2([[maybe_unused]] const void* p) {
#if ON_DEVICE
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
#endif
}

// Memory that other blocks of the launch read or write meanwhile: relaxed (the value alone), acquire and release (what was
// written before a release is seen after the acquire that reads it), all at the scope of the GPU.
DEVICE u32 ld_relaxed(const u32* p) {
#if ON_DEVICE
    u32 v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
#else
    return *static_cast<const volatile u32*>(p);
#endif
}
DEVICE void st_relaxed(u32* p, u32 value) {
#if ON_DEVICE
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
#else
    *static_cast<volatile u32*>(p) = value;
#endif
}
// Not one access of 16 bytes but four of 4, as far as other threads can tell: compare every part with the sentinel.
DEVICE uint4 ld_relaxed16(const void* p) {
    uint4 v;
#if ON_DEVICE
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
#else
    v = *static_cast<const uint4*>(p);
    asm volatile("" ::: "memory");
#endif
    return v;
}
DEVICE uint2 ld_relaxed8(const void* p) {
    uint2 v;
#if ON_DEVICE
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
#else
    v = *static_cast<const uint2*>(p);
    asm volatile("" ::: "memory");
#endif
    return v;
}
DEVICE void st_relaxed8(void* p, uint2 v) {
#if ON_DEVICE
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(p), "r"(v.x), "r"(v.y) : "memory");
#else
    *static_cast<uint2*>(p) = v;
    asm volatile("" ::: "memory");
#endif
}
DEVICE void st_relaxed16(void* p, uint4 v) {
#if ON_DEVICE
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#else
    *static_cast<uint4*>(p) = v;
    asm volatile("" ::: "memory");
#endif
}
DEVICE u32 ld_acquire(const u32* p) {
#if ON_DEVICE
    u32 v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
#else
    return *static_cast<const volatile u32*>(p);
#endif
}
DEVICE void st_release(u32* p, u32 value) {
#if ON_DEVICE
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
#else
    *static_cast<volatile u32*>(p) = value;
#endif
}
// Adds and returns what was there; acquires and releases.
DEVICE u32 atomic_add_acq_rel(u32* p, u32 value) {
#if ON_DEVICE
    u32 old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(value) : "memory");
    return old;
#else
    return atomicAdd(p, value);
#endif
}

// The sentinel of buffers that are polled until every word has been written: 0xffffffff is no value that a store makes,
// because 16-bit NaNs are stored as 0x7fff and f32 ones go through `canonical_nan`.
constexpr u32 SENTINEL = 0xffffffffu;
DEVICE bool has_sentinel(uint4 v) { return v.x == SENTINEL || v.y == SENTINEL || v.z == SENTINEL || v.w == SENTINEL; }
DEVICE float canonical_nan(float x) { return x == x ? x : __uint_as_float(0x7fffffffu); }

// ---- shared memory --------------------------------------------------------------------------------------------------

#if ON_DEVICE
DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }
#endif

// Copies from global to shared memory in the background. `bytes` of the 16 (or of the 4) are copied, the rest become
// zeros. A thread's copies belong to the group that its next commit closes; `cp_async_wait<N>` waits until at most N of
// its groups are under way; other threads see the data after a barrier. sm_75: copied at once.
DEVICE void cp_async16(void* to, const void* from, u32 bytes = 16) {
#if !ON_DEVICE
    host::copy_async(to, from, 16, bytes);
#elif ARCH >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
#else
    if (bytes == 16) {
        *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
    } else {
        for (u32 i = 0; i < 16; ++i) static_cast<u8*>(to)[i] = i < bytes ? static_cast<const u8*>(from)[i] : 0;
    }
#endif
}
DEVICE void cp_async8(void* to, const void* from) {
#if !ON_DEVICE
    host::copy_async(to, from, 8, 8);
#elif ARCH >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(to)), "l"(from) : "memory");
#else
    *static_cast<uint2*>(to) = *static_cast<const uint2*>(from);
#endif
}
DEVICE void cp_async4(void* to, const void* from, u32 bytes = 4) {
#if !ON_DEVICE
    host::copy_async(to, from, 4, bytes);
#elif ARCH >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
#else
    for (u32 i = 0; i < 4; ++i) static_cast<u8*>(to)[i] = i < bytes ? static_cast<const u8*>(from)[i] : 0;
#endif
}
DEVICE void cp_async_commit() {
#if !ON_DEVICE
    host::copy_async_commit();
#elif ARCH >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> DEVICE void cp_async_wait() {
#if !ON_DEVICE
    host::copy_async_wait(N);
#elif ARCH >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}
