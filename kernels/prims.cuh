// prims.cuh - what the kernels stand on: types, conversions, and every instruction that needs PTX, each beside its host version.
//
// Kernels use no CUDA header and no inline PTX of their own; with NVRTC these files need nothing else, and any C++17
// compiler takes them together with `host/cuda_host.h`. The host versions compute the same bits, but for the
// approximations (`ex2_approx`, `rcp_approx`, `tanh_approx`), the `…_accurate` functions, and the order of sums inside
// an mma.
#pragma once
#include "primitives/cluster.cuh"
#include "primitives/memory.cuh"
#include "primitives/numbers.cuh"
#include "primitives/target.cuh"
#include "primitives/tensor_cores.cuh"
#include "primitives/threads.cuh"
