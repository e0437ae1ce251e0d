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
// Nothing ends the process: an error abandons the fibers and returns its message. Kernels own nothing that a
// destructor would have to free.

#include "cuda_host.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#if !defined(__x86_64__) || defined(FUSED_RNN_HOST_UCONTEXT)
#define USE_UCONTEXT 1
#include <ucontext.h>
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define PUBLIC extern "C" __attribute__((visibility("default")))

// ---- the interface to the launcher, which mirrors these structs -----------------------------------------------------

struct HostLaunch {
    unsigned grid[3];
    unsigned block;           // threads
    unsigned cluster;         // blocks, 1 for none
    unsigned cooperative;     // all blocks resident together
    unsigned shared_bytes;
    unsigned compute;         // compute capability times ten
    unsigned long long seed;  // 0: natural order
    unsigned starve;          // 0: no
};

namespace host {

__thread Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

// ---- fibers ---------------------------------------------------------------------------------------------------------

#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK_BYTES = 256 << 10;
#else
constexpr size_t STACK_BYTES = 64 << 10;
#endif
// Stacks lie an odd number of cache lines further apart than their size, or else their tops would share cache sets.
constexpr size_t STACK_STRIDE = STACK_BYTES + 9 * 64;
constexpr size_t STACKS_IN_SLAB = 64;
constexpr unsigned CANARY = 0xC0FFEE11u;

// Stacks stay with the OS thread until it ends; only pages that were touched cost memory.
class StackPool {
public:
    StackPool() = default;
    StackPool(const StackPool&) = delete;
    StackPool& operator=(const StackPool&) = delete;
    ~StackPool() {
        for (char* slab : slabs) free(slab);
    }
    // Lowest address of stack `i`; null where memory is out.
    char* stack(size_t i) {
        while (i / STACKS_IN_SLAB >= slabs.size()) {
            void* slab = nullptr;
            if (posix_memalign(&slab, 64, STACKS_IN_SLAB * STACK_STRIDE)) return nullptr;
            slabs.push_back(static_cast<char*>(slab));
        }
        return slabs[i / STACKS_IN_SLAB] + i % STACKS_IN_SLAB * STACK_STRIDE;
    }

private:
    std::vector<char*> slabs;
};

#ifdef USE_UCONTEXT
typedef ucontext_t Context;
#else
typedef void* Context;  // stack pointer; the registers that a call preserves are on the stack
extern "C" void fused_rnn_switch(void** save, void* to) __attribute__((visibility("hidden")));
__asm__(R"(
.text
.p2align 4
.globl fused_rnn_switch
.hidden fused_rnn_switch
.type fused_rnn_switch,@function
fused_rnn_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size fused_rnn_switch,.-fused_rnn_switch
)");
#endif

struct Copy {
    void* to;
    const void* from;
    unsigned bytes, copied;
    unsigned group;
};

struct Fiber : Thread {
    Context context;
    char* stack;
    Place place;
    unsigned linear;              // within the block
    unsigned cluster_generation;  // seen at cluster_arrive
    bool done, cluster_arrived;
    unsigned copy_groups_committed;
    std::vector<Copy> copies;
#ifdef __SANITIZE_ADDRESS__
    void* fake_stack;
#endif
};

constexpr unsigned BARRIERS = 16;

// A warp-wide operation under way, for one set of lanes.
struct Slot {
    unsigned mask, arrived;
    Compute compute;
    Place place;
    void* operands[32];
};

}  // namespace

struct Warp {
    Block* block;
    Fiber* fibers;        // of lane 0
    unsigned live;        // lanes that have not returned
    unsigned ready;       // lanes that can run
    unsigned spinning;    // lanes in a wait loop: they can run, but let the others go first
    unsigned cluster;     // lanes that wait for the cluster
    unsigned waiting[BARRIERS];
    std::vector<Slot> slots;
    bool starved;
};

namespace {
struct Cluster {
    unsigned arrived, generation, live;
    std::vector<Block*> blocks;
};
}  // namespace

struct Block : BlockView {
    Cluster* cluster;
    std::vector<Warp> warps;
    unsigned live;
    unsigned arrived[BARRIERS], expected[BARRIERS];
};

namespace {

struct Pending {
    unsigned char* to;
    unsigned char value[16];
    unsigned bytes;
    unsigned char* barrier;
};

struct MBarrier {
    unsigned short pending, count : 15, phase : 1;
    int transactions;
};
static_assert(sizeof(MBarrier) == 8, "an mbarrier has 8 bytes");

void copy_bytes(void* to, const void* from, unsigned bytes) { memcpy(to, from, bytes); }

class Engine {
public:
    HostLaunch launch{};
    void (*entry)(const void*) = nullptr;
    const void* params = nullptr;
    std::string error;

    // Runs the launch; `error` says what went wrong.
    void run();

    // ---- called by fibers ----
    void switch_away(Fiber* self);
    void block_barrier(unsigned id, unsigned threads, Place place, bool wait);
    void collective(unsigned mask, void* operand, Compute compute, Place place);
    void spin(Place place);
    void cluster_arrive(Place place);
    void cluster_wait(Place place);
    void store_async(const Pending& store);
    void mbarrier_complete(void* barrier, unsigned arrivals, int transactions);
    [[noreturn]] void exit(Fiber* self);
    [[noreturn]] void abandon();

private:
    StackPool stacks;
    std::vector<Fiber> fibers;
    std::vector<Block> blocks;
    std::vector<Cluster> clusters;
    std::vector<Warp*> order;
    std::vector<Pending> pending;
    Context scheduler{};
    unsigned live = 0;
    unsigned long long progress = 0;  // grows whenever a thread gets further than another turn of a wait loop
    unsigned quantum = 0;             // warp-wide operations until the warp is interrupted
    unsigned rotation = 0;            // order of the lanes
    bool failed = false;
    unsigned long long random_state = 0;
#ifdef __SANITIZE_ADDRESS__
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
    void* scheduler_fake_stack = nullptr;
#endif

    unsigned long long random() {  // splitmix64
        unsigned long long z = random_state += 0x9E3779B97F4A7C15ull;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ z >> 27) * 0x94D049BB133111EBull;
        return z ^ z >> 31;
    }
    unsigned below(unsigned n) { return unsigned((random() >> 32) * n >> 32); }

    bool check();
    bool prepare(unsigned resident);
    void reset(unsigned first_block, unsigned resident);
    void run_resident();
    void run_warp(Warp& warp);
    void draw_starved();
    bool deliver(bool all);
    void release_barrier(Block& block, unsigned id);
    void check_barriers(Block& block);
    void check_cluster(Cluster& cluster);
    void finish_collective(Warp& warp, Slot& slot);
    Fiber* next(Warp& warp);
    void enter(Fiber* fiber);
    void describe_waiting(const char* what);
    static void fiber_main();
    static void start_context(Context& context, char* stack);
};

__thread Engine* engine __attribute__((tls_model("initial-exec"))) = nullptr;

inline Fiber* self() { return static_cast<Fiber*>(current); }

inline void jump(Context& from, Context& to) {
#ifdef USE_UCONTEXT
    swapcontext(&from, &to);
#else
    fused_rnn_switch(&from, to);
#endif
}

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

std::string format(const char* text, va_list arguments) {
    char buffer[512];
    vsnprintf(buffer, sizeof buffer, text, arguments);
    return buffer;
}

__attribute__((format(printf, 1, 2))) std::string formatted(const char* text, ...) {
    va_list arguments;
    va_start(arguments, text);
    std::string result = format(text, arguments);
    va_end(arguments);
    return result;
}

// A file's name without its folders.
const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// Ends the launch with an error at a place in a kernel.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail_at(Place place, const char* text, ...) {
    va_list arguments;
    va_start(arguments, text);
    const std::string message = format(text, arguments);
    va_end(arguments);
    host::fail("%s (%s:%d): %s", place.what, base_name(place.file), place.line, message.c_str());
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
                start_context(f.context, f.stack);
            }
        }
    }
}

// The first switch to `context` begins fiber_main on `stack`.
void Engine::start_context(Context& context, char* stack) {
#ifdef USE_UCONTEXT
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
#else
    void** top = reinterpret_cast<void**>(stack + STACK_BYTES);
    *--top = nullptr;  // where fiber_main would return to; also aligns its frame
    *--top = reinterpret_cast<void*>(&fiber_main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context = top;
#endif
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

// ---- waiting --------------------------------------------------------------------------------------------------------

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

// ---- st.async and mbarrier ------------------------------------------------------------------------------------------

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

// ---- messages -------------------------------------------------------------------------------------------------------

void Engine::describe_waiting(const char* what) {
    failed = true;
    error = what;
    struct Group {
        Place place;
        const Block* block;
        unsigned first, count;
    };
    std::vector<Group> groups;
    unsigned returned = 0;
    for (Block& block : blocks)
        for (Warp& warp : block.warps)
            for (unsigned lane = 0; warp.fibers + lane < warp.fibers + 32; ++lane) {
                if (unsigned(&warp - block.warps.data()) * 32 + lane >= launch.block) break;
                const Fiber& f = warp.fibers[lane];
                if (f.done) {
                    ++returned;
                    continue;
                }
                Group* known = nullptr;
                for (Group& g : groups)
                    if (g.block == &block && g.place.line == f.place.line && !strcmp(g.place.file, f.place.file) &&
                        !strcmp(g.place.what, f.place.what))
                        known = &g;
                if (known)
                    ++known->count;
                else if (groups.size() < 8)
                    groups.push_back({f.place, &block, f.linear, 1});
            }
    if (returned) error += formatted("; %u threads have returned", returned);
    for (const Group& g : groups)
        error += formatted("; block (%u,%u,%u): %u threads, the first is %u, at %s (%s:%d)", g.block->index.x,
                           g.block->index.y, g.block->index.z, g.count, g.first, g.place.what,
                           base_name(g.place.file), g.place.line);
}

}  // namespace

// ---- what cuda_host.h declares --------------------------------------------------------------------------------------

void fail(const char* text, ...) {
    va_list arguments;
    va_start(arguments, text);
    const std::string message = format(text, arguments);
    va_end(arguments);
    const Fiber* f = self();
    const uint3 b = f->block->index;
    engine->error = formatted("block (%u,%u,%u) thread %u: %s", b.x, b.y, b.z, f->linear, message.c_str());
    engine->abandon();
}

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
