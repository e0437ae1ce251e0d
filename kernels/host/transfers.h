// Memory that is written later or elsewhere: distributed shared memory, cp.async, st.async and mbarriers.
//
// A copy by cp.async happens when its thread waits for it. A store by st.async happens at once under seed 0, else at any
// time until nothing else can run. A part of `engine.cpp`.
#pragma once
#include "engine.h"
#include "messages.h"

#include <cstring>
#include <utility>

namespace host {
namespace {

struct MBarrier {
    unsigned short pending, count : 15, phase : 1;
    int transactions;
};
static_assert(sizeof(MBarrier) == 8, "an mbarrier has 8 bytes");

// A copy of no bytes, which fills with zeros, may have no source.
void copy_bytes(void* to, const void* from, unsigned bytes) {
    if (bytes) memcpy(to, from, bytes);
}

void Engine::store_async(const Pending& store) {
    if (launch.seed)
        pending.push_back(store);
    else {
        copy_bytes(store.to, store.value, store.bytes);
        mbarrier_complete(store.barrier, 0, -int(store.bytes));
    }
}

// Lets stores happen, all or a random part, in random order. Whether any did.
bool Engine::deliver(bool all) {
    const size_t before = pending.size();
    for (size_t i = pending.size(); i > 0; --i) {
        if (!all && below(4) != 0) continue;
        std::swap(pending[i - 1], pending[pending.size() - 1]);
        const Pending store = pending.back();
        pending.pop_back();
        copy_bytes(store.to, store.value, store.bytes);
        mbarrier_complete(store.barrier, 0, -int(store.bytes));
    }
    return pending.size() != before;
}

void Engine::mbarrier_complete(void* at, unsigned arrivals, int transactions) {
    MBarrier b;
    memcpy(&b, at, sizeof b);
    b.transactions += transactions;
    b.pending = (unsigned short)(b.pending - arrivals);
    if (b.pending == 0 && b.transactions == 0) {
        b.phase ^= 1;
        b.pending = b.count;
        ++progress;
    }
    memcpy(at, &b, sizeof b);
}

}  // namespace

// ---- what cuda_host.h declares --------------------------------------------------------------------------------------

unsigned char* cluster_map(const void* pointer, unsigned rank) {
    const Block& mine = *current->block;
    const auto* p = static_cast<const unsigned char*>(pointer);
    if (p < mine.shared || p >= mine.shared + mine.shared_bytes) fail("mapa: the address is not in shared memory");
    if (rank >= mine.cluster_size) fail("mapa: rank %u in a cluster of %u", rank, mine.cluster_size);
    return mine.cluster->blocks[rank]->shared + (p - mine.shared);
}

void cluster_check(const void* pointer, unsigned bytes, const char* what) {
    const auto* p = static_cast<const unsigned char*>(pointer);
    for (const Block* block : current->block->cluster->blocks)
        if (p >= block->shared && p < block->shared + block->shared_bytes) {
            if (p + bytes > block->shared + block->shared_bytes)
                fail("%s: %u bytes reach beyond the shared memory of block %u of the cluster", what, bytes,
                     block->cluster_rank);
            if (block->live == 0) fail("%s: block %u of the cluster has returned", what, block->cluster_rank);
            if (reinterpret_cast<uintptr_t>(p) % bytes) fail("%s: the address is not aligned to %u bytes", what, bytes);
            return;
        }
    fail("%s: the address is not in the cluster's shared memory", what);
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned copied) {
    Fiber* f = self();
    const Block& block = *f->block;
    const auto* p = static_cast<const unsigned char*>(to);
    if (p < block.shared || p + bytes > block.shared + block.shared_bytes)
        fail("cp.async: the target is not in shared memory");
    if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
        fail("cp.async: an address is not aligned to %u bytes", bytes);
    f->copies.push_back({to, from, bytes, copied, f->copy_groups_committed});
}
void copy_async_commit() { ++self()->copy_groups_committed; }
void copy_async_wait(unsigned groups_left) {
    Fiber* f = self();
    size_t done = 0;
    while (done < f->copies.size() && f->copies[done].group + groups_left < f->copy_groups_committed) {
        const Copy& copy = f->copies[done++];
        copy_bytes(copy.to, copy.from, copy.copied);
        memset(static_cast<char*>(copy.to) + copy.copied, 0, copy.bytes - copy.copied);
    }
    f->copies.erase(f->copies.begin(), f->copies.begin() + long(done));
}

void store_async(unsigned char* to, const void* from, unsigned bytes, unsigned char* barrier) {
    cluster_check(to, bytes, "st.async");
    cluster_check(barrier, 8, "st.async");
    Pending store{to, {}, bytes, barrier};
    memcpy(store.value, from, bytes);
    engine->store_async(store);
}

void mbarrier_init(void* barrier, unsigned count) {
    cluster_check(barrier, 8, "mbarrier.init");
    if (count == 0 || count > 0x7fff) fail("mbarrier.init: %u arrivals", count);
    MBarrier b{};
    b.pending = b.count = (unsigned short)(count & 0x7fff);
    memcpy(barrier, &b, sizeof b);
}
void mbarrier_arrive(void* barrier, unsigned arrivals, unsigned transactions, Place place) {
    cluster_check(barrier, 8, place.what);
    MBarrier b;
    memcpy(&b, barrier, sizeof b);
    if (b.pending < arrivals || b.count == 0 || b.pending > b.count)
        fail_at(place, "more arrivals than the barrier's %u, or it is not initialised", unsigned(b.count));
    engine->mbarrier_complete(barrier, arrivals, int(transactions));
}
bool mbarrier_test(const void* barrier, unsigned parity, Place place) {
    cluster_check(barrier, 8, place.what);
    MBarrier b;
    memcpy(&b, barrier, sizeof b);
    if (b.count == 0 || b.pending > b.count) fail_at(place, "the barrier is not initialised");
    return b.phase != (parity & 1);
}

}  // namespace host
