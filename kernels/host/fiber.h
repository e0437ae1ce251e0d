// Fibers: their stacks, and the switch from one to another. A part of `engine.cpp` that knows nothing of kernels.
//
// A switch leaves the registers that a call preserves on the stack that it comes from, and takes them from the stack
// that it goes to; it makes no call of the operating system. On machines other than x86-64, or where
// FUSED_RNN_HOST_UCONTEXT is defined, `swapcontext` does it, which takes longer.
#pragma once
#include <cstddef>
#include <cstdlib>
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

namespace host {
namespace {

// ---- stacks ---------------------------------------------------------------------------------------------------------

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

// ---- contexts -------------------------------------------------------------------------------------------------------

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

inline void jump(Context& from, Context& to) {
#ifdef USE_UCONTEXT
    swapcontext(&from, &to);
#else
    fused_rnn_switch(&from, to);
#endif
}

// The first switch to `context` begins `main` on `stack`.
void start_context(Context& context, char* stack, void (*main)()) {
#ifdef USE_UCONTEXT
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, main, 0);
#else
    void** top = reinterpret_cast<void**>(stack + STACK_BYTES);
    *--top = nullptr;  // where `main` would return to; also aligns its frame
    *--top = reinterpret_cast<void*>(main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context = top;
#endif
}

}  // namespace
}  // namespace host
