// primitives/cluster.cuh - clusters of blocks (sm_90 up): their barrier, each other's shared memory, and stores counted by an mbarrier.
#pragma once
#include "primitives/memory.cuh"
#include "primitives/target.cuh"

// A place in the shared memory of a block of this cluster.
#if ON_DEVICE
struct ClusterAddress {
    u32 address;
    DEVICE ClusterAddress operator+(u32 bytes) const { return ClusterAddress{address + bytes}; }
};
#else
struct ClusterAddress {
    u8* address;
    ClusterAddress operator+(u32 bytes) const { return ClusterAddress{address + bytes}; }
};
#endif

#if !ON_DEVICE
DEVICE u32 cluster_rank() { return host::block().cluster_rank; }
DEVICE u32 cluster_size() { return host::block().cluster_size; }
DEVICE void cluster_arrive(HOST_AT) { host::cluster_arrive(HOST_PLACE("cluster_arrive")); }
DEVICE void cluster_arrive_relaxed(HOST_AT) { host::cluster_arrive(HOST_PLACE("cluster_arrive_relaxed")); }
DEVICE void cluster_wait(HOST_AT) { host::cluster_wait(HOST_PLACE("cluster_wait")); }
DEVICE ClusterAddress map_cluster(const void* p, u32 rank) { return ClusterAddress{host::cluster_map(p, rank)}; }
DEVICE float ld_cluster(ClusterAddress at) {
    host::cluster_check(at.address, 4, "ld.shared::cluster");
    float v;
    memcpy(&v, at.address, 4);
    return v;
}
DEVICE void st_cluster(ClusterAddress at, float v) {
    host::cluster_check(at.address, 4, "st.shared::cluster");
    memcpy(at.address, &v, 4);
}
DEVICE void mbarrier_init(u64* barrier, u32 count) { host::mbarrier_init(barrier, count); }
DEVICE void mbarrier_init_fence() {}
DEVICE void mbarrier_arrive(u64* barrier, HOST_AT) {
    host::mbarrier_arrive(barrier, 1, 0, HOST_PLACE("mbarrier_arrive"));
}
DEVICE void mbarrier_arrive_cluster(ClusterAddress barrier, HOST_AT) {
    host::mbarrier_arrive(barrier.address, 1, 0, HOST_PLACE("mbarrier_arrive_cluster"));
}
DEVICE void mbarrier_arrive_expect(u64* barrier, u32 bytes, HOST_AT) {
    host::mbarrier_arrive(barrier, 1, bytes, HOST_PLACE("mbarrier_arrive_expect"));
}
DEVICE bool mbarrier_test(u64* barrier, u32 parity, HOST_AT) {
    return host::mbarrier_test(barrier, parity, HOST_PLACE("mbarrier_test"));
}
DEVICE bool mbarrier_test_cluster(u64* barrier, u32 parity, HOST_AT) {
    return host::mbarrier_test(barrier, parity, HOST_PLACE("mbarrier_test_cluster"));
}
DEVICE void st_async4(ClusterAddress to, u32 v, ClusterAddress barrier) {
    host::store_async(to.address, &v, 4, barrier.address);
}
DEVICE void st_async8(ClusterAddress to, uint2 v, ClusterAddress barrier) {
    host::store_async(to.address, &v, 8, barrier.address);
}
DEVICE void st_async16(ClusterAddress to, uint4 v, ClusterAddress barrier) {
    host::store_async(to.address, &v, 16, barrier.address);
}
#elif ARCH >= 900
DEVICE u32 cluster_rank() {
    u32 r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
DEVICE u32 cluster_size() {
    u32 r;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
    return r;
}
// All threads of the cluster, whole warps: arrive, then wait. Orders what was written before with what is read after;
// the relaxed form orders nothing, but costs no fence of the whole GPU.
DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
DEVICE void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// The place in block `rank` that corresponds to `p` in this block's shared memory.
DEVICE ClusterAddress map_cluster(const void* p, u32 rank) {
    u32 r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(shared_address(p)), "r"(rank));
    return ClusterAddress{r};
}
DEVICE float ld_cluster(ClusterAddress at) {
    float v;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(at.address) : "memory");
    return v;
}
DEVICE void st_cluster(ClusterAddress at, float v) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(at.address), "f"(v) : "memory");
}
// A barrier in 8 bytes of shared memory. A phase completes when `count` threads have arrived and as many bytes as they
// announced have been stored by `st_async`; then the next begins. The phases' parities are 0, 1, 0, …
DEVICE void mbarrier_init(u64* barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
// Makes initialised barriers visible to the cluster; a cluster barrier must follow.
DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
DEVICE void mbarrier_arrive_cluster(ClusterAddress barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier.address) : "memory");
}
// Arrives and announces `bytes` bytes for this phase.
DEVICE void mbarrier_arrive_expect(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
// Whether the phase with this parity is complete; may wait for a while in hardware. The plain form orders what st_async
// and threads of this block wrote; the other one also orders plain stores of other blocks, for an L1 invalidate. The plain form
// acquires at the scope of the block, while st_async completes its bytes with a release at that of the cluster: both the bytes and
// the barrier are in this block's own shared memory, which only this block reads, so nothing of another block's has to be seen.
DEVICE bool mbarrier_test(u64* barrier, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    return done != 0;
}
DEVICE bool mbarrier_test_cluster(u64* barrier, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    return done != 0;
}
// Stores into another block's shared memory, counted by a barrier of that same block. Aligned to the size.
DEVICE void st_async4(ClusterAddress to, u32 v, ClusterAddress barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to.address), "r"(v),
                 "r"(barrier.address) : "memory");
}
DEVICE void st_async8(ClusterAddress to, uint2 v, ClusterAddress barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1,%2}, [%3];" ::"r"(to.address),
                 "r"(v.x), "r"(v.y), "r"(barrier.address) : "memory");
}
DEVICE void st_async16(ClusterAddress to, uint4 v, ClusterAddress barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1,%2,%3,%4}, [%5];"
                 ::"r"(to.address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier.address) : "memory");
}
#else
__device__ u32 cluster_rank();
__device__ u32 cluster_size();
__device__ void cluster_arrive();
__device__ void cluster_arrive_relaxed();
__device__ void cluster_wait();
__device__ ClusterAddress map_cluster(const void* p, u32 rank);
__device__ float ld_cluster(ClusterAddress at);
__device__ void st_cluster(ClusterAddress at, float v);
__device__ void mbarrier_init(u64* barrier, u32 count);
__device__ void mbarrier_init_fence();
__device__ void mbarrier_arrive(u64* barrier);
__device__ void mbarrier_arrive_cluster(ClusterAddress barrier);
__device__ void mbarrier_arrive_expect(u64* barrier, u32 bytes);
__device__ bool mbarrier_test(u64* barrier, u32 parity);
__device__ bool mbarrier_test_cluster(u64* barrier, u32 parity);
__device__ void st_async4(ClusterAddress to, u32 v, ClusterAddress barrier);
__device__ void st_async8(ClusterAddress to, uint2 v, ClusterAddress barrier);
__device__ void st_async16(ClusterAddress to, uint4 v, ClusterAddress barrier);
#endif
