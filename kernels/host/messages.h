// What the engine says of a launch that goes wrong: at which place of a kernel, in which thread, where the others wait.
//
// A part of `engine.cpp`.
#pragma once
#include "engine.h"

#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

namespace host {
namespace {

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

// The end of a launch in which no thread gets further: `what`, and at which places how many threads wait.
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

}  // namespace host
