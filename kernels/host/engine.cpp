// Runs kernels that were compiled with `cuda_host.h`: the scheduler of their threads.
//
// Each CUDA thread is a fiber with its own stack; all fibers of a launch share one OS thread. A fiber runs until it
// waits: at a barrier, in a warp-wide operation, or in a turn of a wait loop. All blocks of a cooperative launch, and
// of a cluster, are resident together; the blocks (clusters) of other launches run one after another.
//
// Schedules. Seed 0: warps and lanes in their natural order. Any other seed: blocks, warps and lanes in changing random
// orders, warps interrupted between warp-wide operations, `st.async` delivered late. `starve`: one random warp or block
// gets no turn as long as any other can run, so it lags by as much as the kernel's synchronisation lets it, whole time
// steps included; every few of its turns another one is drawn.
//
// What it checks: barriers that not all threads reach, wait loops that nobody ends, lanes missing from a warp-wide
// operation, shuffles from absent lanes, mbarriers with too many arrivals, distributed shared memory of blocks that
// have returned, the limits of a launch. Shared memory starts as NaNs and has exactly the size asked for, so
// AddressSanitizer sees accesses outside. What it cannot see: memory ordering (one OS thread runs everything in order),
// the PTX of a primitive, a missing __syncwarp next to another warp-wide operation (which is one itself here), races
// that need two lanes of a warp to interleave between such operations.
//
// Its parts are headers, so that the compiler can inline across them: `fiber.h` stacks and contexts, `engine.h` what
// runs, `messages.h` what is said of errors, `waiting.h` barriers and warp-wide operations, `transfers.h` what is
// written later or elsewhere; here are the limits of a launch, the schedule, and the launcher's side.
//
// Nothing ends the process: an error abandons the fibers and returns its message. Kernels own nothing that a
// destructor would have to free.

#include "engine.h"
#include "fiber.h"
#include "messages.h"
#include "transfers.h"
#include "waiting.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#define PUBLIC extern "C" __attribute__((visibility("default")))

namespace host {

__thread Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

// ---- limits ---------------------------------------------------------------------------------------------------------

unsigned shared_limit(unsigned compute) {
    switch (compute) {
        case 75: return 64 << 10;
        case 80: case 87: return 163 << 10;
        case 86: case 89: case 120: case 121: return 99 << 10;
        case 90: case 100: case 103: case 110: return 227 << 10;
        default: return 0;
    }
}

bool Engine::check() {
    const HostLaunch& l = launch;
    const unsigned limit = shared_limit(l.compute);
    const unsigned long long blocks = 1ull * l.grid[0] * l.grid[1] * l.grid[2];
    if (!limit)
        error = formatted("compute capability %u.%u is not known to the host engine", l.compute / 10, l.compute % 10);
    else if (l.block == 0 || l.block > 1024)
        error = formatted("a block of %u threads: expected 1 to 1024", l.block);
    else if (blocks == 0 || l.grid[0] > 0x7fffffffu || l.grid[1] > 65535 || l.grid[2] > 65535 || blocks > 0xffffffffull)
        error = formatted("a grid of %u x %u x %u blocks: expected 1 to 2147483647, 65535, 65535", l.grid[0], l.grid[1],
                          l.grid[2]);
    else if (l.shared_bytes > limit)
        error = formatted("%u bytes of shared memory: compute capability %u.%u has %u", l.shared_bytes, l.compute / 10,
                          l.compute % 10, limit);
    else if (l.cluster == 0 || l.cluster > 16)
        error = formatted("a cluster of %u blocks: expected 1 to 16", l.cluster);
    else if (l.cluster > 1 && l.compute < 90)
        error = formatted("a cluster of %u blocks: compute capability %u.%u has no clusters", l.cluster, l.compute / 10,
                          l.compute % 10);
    else if (l.grid[0] % l.cluster)
        error = formatted("a grid of %u blocks along x is not whole clusters of %u", l.grid[0], l.cluster);
    return error.empty();
}

// ---- running --------------------------------------------------------------------------------------------------------

void Engine::run() {
    error.clear();
    failed = false;
    progress = 0;
    random_state = launch.seed * 0xD1342543DE82EF95ull + 1;
    if (!check()) return;
    const unsigned total = launch.grid[0] * launch.grid[1] * launch.grid[2];
    const unsigned resident = launch.cooperative ? total : launch.cluster;
    if (!prepare(resident)) {
        error = formatted("too little memory on the host for %u resident blocks of %u threads", resident, launch.block);
    } else {
        // Groups of blocks that are resident together, in the order of a random walk that visits each once.
        const unsigned groups = total / resident;
        unsigned step = 1, at = 0;
        if (launch.seed && groups > 1) {
            at = below(groups);
            for (bool coprime = false; !coprime;) {
                step = 1 + below(groups - 1);
                unsigned a = step, b = groups;
                while (b) { const unsigned r = a % b; a = b; b = r; }
                coprime = a == 1;
            }
        }
        for (unsigned g = 0; g < groups && !failed; ++g) {
            reset(at * resident, resident);
            run_resident();
            at = unsigned((1ull * at + step) % groups);
        }
    }
    for (Block& block : blocks) free(block.shared);
    blocks.clear();
    clusters.clear();
    order.clear();
    pending.clear();
    // The fibers stay for the next launch, unless this one was large.
    if (fibers.size() > 4096) std::vector<Fiber>().swap(fibers);
    current = nullptr;
}

bool Engine::prepare(unsigned resident) try {
    const size_t threads = size_t(resident) * launch.block;
    if (fibers.size() < threads) fibers.resize(threads);
    for (size_t i = 0; i < threads; ++i)
        if (!(fibers[i].stack = stacks.stack(i))) return false;
    blocks.resize(resident);
    clusters.resize(resident / launch.cluster);
    const unsigned warps = (launch.block + 31) / 32;
    for (unsigned b = 0; b < resident; ++b) {
        Block& block = blocks[b];
        void* shared = nullptr;
        // Exactly the size asked for; at least aligned as the device aligns it.
        if (posix_memalign(&shared, 1024, launch.shared_bytes ? launch.shared_bytes : 1)) return false;
        block.shared = static_cast<unsigned char*>(shared);
        block.shared_bytes = launch.shared_bytes;
        block.cluster = &clusters[b / launch.cluster];
        block.cluster->blocks.push_back(&block);
        block.cluster_rank = b % launch.cluster;
        block.cluster_size = launch.cluster;
        block.threads = {launch.block, 1, 1};
        block.grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
        block.warps.resize(warps);
        for (unsigned w = 0; w < warps; ++w) order.push_back(&block.warps[w]);
    }
    return true;
} catch (const std::bad_alloc&) {
    return false;
}

void Engine::reset(unsigned first_block, unsigned resident) {
    live = resident * launch.block;
    pending.clear();
    for (Cluster& cluster : clusters) {
        cluster.arrived = cluster.generation = 0;
        cluster.live = launch.cluster * launch.block;
    }
    for (unsigned b = 0; b < resident; ++b) {
        Block& block = blocks[b];
        const unsigned index = first_block + b, gx = launch.grid[0], gy = launch.grid[1];
        block.index = {index % gx, index / gx % gy, index / gx / gy};
        block.live = launch.block;
        memset(block.arrived, 0, sizeof block.arrived);
        memset(block.expected, 0, sizeof block.expected);
        memset(block.shared, 0xff, launch.shared_bytes);  // NaNs: a device does not clear shared memory either
        for (unsigned w = 0; w < block.warps.size(); ++w) {
            Warp& warp = block.warps[w];
            const unsigned lanes = launch.block - w * 32 < 32 ? launch.block - w * 32 : 32;
            warp.block = &block;
            warp.fibers = &fibers[size_t(b) * launch.block + w * 32];
            warp.live = warp.ready = lanes == 32 ? ~0u : (1u << lanes) - 1;
            warp.spinning = warp.cluster = 0;
            memset(warp.waiting, 0, sizeof warp.waiting);
            warp.slots.clear();
            warp.starved = false;
            for (unsigned lane = 0; lane < lanes; ++lane) {
                Fiber& f = warp.fibers[lane];
                f.linear = w * 32 + lane;
                f.index = {f.linear, 0, 0};
                f.lane = lane;
                f.block = &block;
                f.warp = &warp;
                f.place = {"start", "", 0};
                f.cluster_arrived = f.done = false;
                f.copy_groups_committed = 0;
                f.copies.clear();
                memcpy(f.stack, &CANARY, sizeof CANARY);
#ifdef __SANITIZE_ADDRESS__
                __asan_unpoison_memory_region(f.stack, STACK_BYTES);
                f.fake_stack = nullptr;
#endif
                start_context(f.context, f.stack, fiber_main);
            }
        }
    }
}

void Engine::draw_starved() {
    for (Warp* warp : order) warp->starved = false;
    if (order.size() < 2) return;
    if (blocks.size() > 1 && below(2)) {
        for (Warp& warp : blocks[below(unsigned(blocks.size()))].warps) warp.starved = true;
    } else {
        order[below(unsigned(order.size()))]->starved = true;
    }
}

void Engine::run_resident() {
    // Rounds in which all that can run are wait loops that do not end. A wait with a bound of its own gives up before
    // that where the bound is lower.
    constexpr unsigned LIVELOCK = 20000;
    unsigned idle = 0;
    bool woken = false;  // wait loops have had a turn since `seen`
    unsigned long long seen = progress;
    if (launch.starve) draw_starved();
    while (live) {
        if (launch.seed)
            for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(unsigned(i))]);
        bool ran = false;
        for (Warp* warp : order) {
            if (!warp->ready || warp->starved) continue;
            run_warp(*warp);
            if (failed) return;
            ran = true;
        }
        if (!pending.empty()) deliver(false);
        if (ran) continue;
        // Only wait loops are left, or the starved.
        if (progress != seen) {
            seen = progress;
            woken = false;
            idle = 0;
        }
        if (!woken) {
            bool any = false;
            for (Warp* warp : order)
                if (warp->spinning && !warp->starved) {
                    warp->ready |= warp->spinning;
                    warp->spinning = 0;
                    any = true;
                }
            woken = true;
            if (any) continue;
        }
        woken = false;
        if (!pending.empty() && deliver(true)) continue;
        bool starved_ran = false, block_starved = false;
        unsigned starved_warps = 0;
        for (Warp* warp : order) {
            if (!warp->starved) continue;
            block_starved = ++starved_warps > 1;
            warp->ready |= warp->spinning;
            warp->spinning = 0;
            if (!warp->ready) continue;
            starved_ran = true;
            run_warp(*warp);
            if (failed) return;
        }
        if (launch.starve && (!starved_ran || below(block_starved ? 16 : 4) == 0)) draw_starved();
        if (progress != seen) continue;
        bool spinning = false;
        for (Warp* warp : order) spinning = spinning || warp->spinning || warp->ready;
        if (!spinning) return describe_waiting("deadlock: no thread can go on");
        if (++idle > LIVELOCK) return describe_waiting("livelock: every thread that can run is in a wait loop");
    }
    if (!pending.empty()) {
        for (Cluster& cluster : clusters)
            if (cluster.live == 0) {
                error = "st.async was still under way when the blocks of the cluster returned";
                failed = true;
                return;
            }
    }
}

// ---- switching ------------------------------------------------------------------------------------------------------

// The next lane to run, in an order that changes with the seed.
inline Fiber* Engine::next(Warp& warp) {
    const unsigned ready = warp.ready;
    if (!ready) return nullptr;
    const unsigned r = rotation & 31;
    const unsigned rotated = ready >> r | ready << (-r & 31);
    const unsigned first = rotation & 32 ? 31 - unsigned(__builtin_clz(rotated)) : unsigned(__builtin_ctz(rotated));
    return warp.fibers + ((first + r) & 31);
}

// Runs the lanes of a warp until none can go on, or it is interrupted.
void Engine::run_warp(Warp& warp) {
    if (launch.seed) {
        const unsigned long long bits = random();
        rotation = unsigned(bits) & 63;
        quantum = 1 + (unsigned(bits >> 8) & (bits & 64 ? 7 : 255));
    } else {
        rotation = 0;
        quantum = 0;
    }
    enter(next(warp));
}

// From the scheduler into a fiber; returns when a fiber switches back to the scheduler.
void Engine::enter(Fiber* fiber) {
    current = fiber;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber->stack, STACK_BYTES);
#endif
    jump(scheduler, fiber->context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

// From a fiber that waits (or has returned) to the next lane of its warp, or to the scheduler.
void Engine::switch_away(Fiber* from) {
    Fiber* to = failed || (quantum && --quantum == 0) ? nullptr : next(*from->warp);
    if (to == from) return;
#ifdef __SANITIZE_ADDRESS__
    void** fake = from->done ? nullptr : &from->fake_stack;
    if (to)
        __sanitizer_start_switch_fiber(fake, to->stack, STACK_BYTES);
    else
        __sanitizer_start_switch_fiber(fake, scheduler_stack, scheduler_stack_bytes);
#endif
    if (to) current = to;
    jump(from->context, to ? to->context : scheduler);
#ifdef __SANITIZE_ADDRESS__
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(from->fake_stack, &stack, &bytes);
    if (bytes != STACK_BYTES) {
        scheduler_stack = stack;
        scheduler_stack_bytes = bytes;
    }
#endif
}

void Engine::fiber_main() {
#ifdef __SANITIZE_ADDRESS__
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (bytes != STACK_BYTES) {
        engine->scheduler_stack = stack;
        engine->scheduler_stack_bytes = bytes;
    }
#endif
    engine->entry(engine->params);
    engine->exit(self());
}

void Engine::exit(Fiber* f) {
    Warp& warp = *f->warp;
    Block& block = *f->block;
    unsigned canary;
    memcpy(&canary, f->stack, sizeof canary);
    if (canary != CANARY) host::fail("a thread used more than %zu bytes of stack", STACK_BYTES);
    if (!f->copies.empty()) host::fail("a thread returned with cp.async copies that it never waited for");
    if (f->cluster_arrived)
        host::fail("a thread returned between arriving at the cluster's barrier and waiting for it");
    f->done = true;
    warp.live &= ~(1u << f->lane);
    warp.ready &= ~(1u << f->lane);
    --live;
    --block.live;
    --block.cluster->live;
    ++progress;
    for (Slot& slot : warp.slots)
        if (slot.arrived && (slot.mask & warp.live & ~slot.arrived) == 0) finish_collective(warp, slot);
    check_barriers(block);
    check_cluster(*block.cluster);
    switch_away(f);
    __builtin_unreachable();
}

void Engine::abandon() {
    failed = true;
    Fiber* f = self();
    f->done = true;  // nothing resumes it
    switch_away(f);
    __builtin_unreachable();
}

}  // namespace
}  // namespace host

// ---- the launcher's side --------------------------------------------------------------------------------------------

// Runs one launch to its end on the calling thread. 0, or the reason in `message`.
PUBLIC int fused_rnn_host_launch(void (*entry)(const void*), const HostLaunch* launch, const void* params,
                                 char* message, unsigned message_len) {
    static thread_local std::unique_ptr<host::Engine> engine;
    if (!engine) engine.reset(new host::Engine);
    host::engine = engine.get();
    engine->launch = *launch;
    engine->entry = entry;
    engine->params = params;
    engine->run();
    if (engine->error.empty()) return 0;
    if (message_len) snprintf(message, message_len, "%s", engine->error.c_str());
    return 1;
}
