// Where threads wait: barriers of a block, warp-wide operations, turns of wait loops, the barrier of a cluster.
//
// Who waits leaves its place for messages and its bit in the warp (`waiting`, a slot, `spinning`, `cluster`) and
// switches away; who comes last sets the bits of the others in `ready`. A part of `engine.cpp`.
#pragma once
#include "engine.h"
#include "messages.h"

namespace host {
namespace {

void Engine::release_barrier(Block& block, unsigned id) {
    block.arrived[id] = block.expected[id] = 0;
    ++progress;
    for (Warp& warp : block.warps) {
        warp.ready |= warp.waiting[id];
        warp.waiting[id] = 0;
    }
}

// After a thread has returned: barriers for all threads of the block may be complete now.
void Engine::check_barriers(Block& block) {
    for (unsigned id = 0; id < BARRIERS; ++id)
        if (block.arrived[id] && block.expected[id] == 0 && block.arrived[id] == block.live) release_barrier(block, id);
}

void Engine::block_barrier(unsigned id, unsigned threads, Place place, bool wait) {
    Fiber* f = self();
    Block& block = *f->block;
    if (id >= BARRIERS) fail_at(place, "barrier %u of 0..15", id);
    if (threads % 32) fail_at(place, "%u threads are not whole warps", threads);
    if (block.arrived[id] == 0)
        block.expected[id] = threads;
    else if (block.expected[id] != threads)
        fail_at(place, "barrier %u for %u threads meets one for %u", id, threads, block.expected[id]);
    f->place = place;
    if (++block.arrived[id] == (threads ? threads : block.live)) return release_barrier(block, id);
    if (!wait) return;
    f->warp->ready &= ~(1u << f->lane);
    f->warp->waiting[id] |= 1u << f->lane;
    switch_away(f);
}

void Engine::finish_collective(Warp& warp, Slot& slot) {
    for (unsigned i = 0; i < 32; ++i)
        if (!(slot.arrived >> i & 1)) slot.operands[i] = nullptr;
    slot.compute(slot.operands);
    warp.ready |= slot.arrived;
    slot.arrived = 0;
    ++progress;
}

void Engine::collective(unsigned mask, void* operand, Compute compute, Place place) {
    Fiber* f = self();
    Warp& warp = *f->warp;
    const unsigned bit = 1u << f->lane;
    if (!(mask & bit))
        fail_at(place, "lane %u is not in its own mask %#x", f->lane, mask);
    Slot* slot = nullptr;
    for (Slot& s : warp.slots)
        if (s.mask == mask) {
            slot = &s;
            break;
        }
    if (!slot) {
        // Reuse one that is free, so that computed masks do not pile up.
        for (Slot& s : warp.slots)
            if (!s.arrived) slot = &s;
        if (!slot) {
            warp.slots.reserve(32);
            warp.slots.emplace_back();
            slot = &warp.slots.back();
        }
        *slot = Slot{mask, 0, nullptr, place, {}};
    }
    if (!slot->arrived) {
        slot->compute = compute;
        slot->place = place;
    } else if (slot->place.what != place.what && strcmp(slot->place.what, place.what) != 0) {
        fail_at(place, "other lanes of the warp are at %s (%s:%d)", slot->place.what, base_name(slot->place.file),
                slot->place.line);
    }
    slot->operands[f->lane] = operand;
    slot->arrived |= bit;
    if ((mask & warp.live & ~slot->arrived) == 0) return finish_collective(warp, *slot);
    f->place = place;
    warp.ready &= ~bit;
    switch_away(f);
}

void Engine::spin(Place place) {
    Fiber* f = self();
    f->place = place;
    f->warp->ready &= ~(1u << f->lane);
    f->warp->spinning |= 1u << f->lane;
    switch_away(f);
}

void Engine::check_cluster(Cluster& cluster) {
    if (cluster.arrived == 0 || cluster.arrived != cluster.live) return;
    cluster.arrived = 0;
    ++cluster.generation;
    ++progress;
    for (Block* block : cluster.blocks)
        for (Warp& warp : block->warps) {
            warp.ready |= warp.cluster;
            warp.cluster = 0;
        }
}

void Engine::cluster_arrive(Place place) {
    Fiber* f = self();
    Cluster& cluster = *f->block->cluster;
    if (f->cluster_arrived)
        fail_at(place, "arrives twice without waiting");
    f->cluster_arrived = true;
    f->cluster_generation = cluster.generation;
    ++cluster.arrived;
    check_cluster(cluster);
}

void Engine::cluster_wait(Place place) {
    Fiber* f = self();
    if (!f->cluster_arrived) fail_at(place, "waits without having arrived");
    f->cluster_arrived = false;
    if (f->block->cluster->generation != f->cluster_generation) return;
    f->place = place;
    f->warp->ready &= ~(1u << f->lane);
    f->warp->cluster |= 1u << f->lane;
    switch_away(f);
}

}  // namespace

// ---- what cuda_host.h declares --------------------------------------------------------------------------------------

void block_barrier(unsigned id, unsigned threads, Place place) { engine->block_barrier(id, threads, place, true); }
void block_barrier_arrive(unsigned id, unsigned threads, Place place) {
    if (threads == 0) fail_at(place, "an arrival needs the number of threads");
    engine->block_barrier(id, threads, place, false);
}
void collective(unsigned mask, void* operand, Compute compute, Place place) {
    engine->collective(mask, operand, compute, place);
}
void spin(Place place) { engine->spin(place); }
void cluster_arrive(Place place) { engine->cluster_arrive(place); }
void cluster_wait(Place place) { engine->cluster_wait(place); }

}  // namespace host
