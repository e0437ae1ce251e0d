// What the engine consists of: threads, warps, blocks and clusters while they run, and the class that runs them.
//
// A part of `engine.cpp`, where its rules and limits are described.
#pragma once
#include "cuda_host.h"
#include "fiber.h"

#include <string>
#include <vector>

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

// ---- what runs ------------------------------------------------------------------------------------------------------

// A copy by cp.async that nobody has waited for.
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

struct Cluster {
    unsigned arrived, generation, live;
    std::vector<Block*> blocks;
};

struct Block : BlockView {
    Cluster* cluster;
    std::vector<Warp> warps;
    unsigned live;
    unsigned arrived[BARRIERS], expected[BARRIERS];
};

// A store by st.async that has not happened yet.
struct Pending {
    unsigned char* to;
    unsigned char value[16];
    unsigned bytes;
    unsigned char* barrier;
};

// ---- what runs it ---------------------------------------------------------------------------------------------------

namespace {

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
};

__thread Engine* engine __attribute__((tls_model("initial-exec"))) = nullptr;

inline Fiber* self() { return static_cast<Fiber*>(current); }

}  // namespace

}  // namespace host
