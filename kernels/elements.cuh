// elements.cuh - how threads share elements and rows in the kernels of a model's operations.
#pragma once
#include "params_ops.cuh"

DEVICE u64 first_element() { return u64(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE u64 element_stride() { return u64(gridDim.x) * blockDim.x; }
// The same for work that a warp shares: all its lanes have the same number.
DEVICE u64 first_row() { return first_element() / 32; }
DEVICE u64 row_stride() { return element_stride() / 32; }

template <class V> DEVICE V not_a_number() { return V(__uint_as_float(0x7fc00000u)); }
