// gates.cu - precomputed gates as an operator's input, and their gradients as its output.
//
// Math       wx[t, b, r] = x[t, b, first + r]; dx[t, b, first + r] = dgates[t, b, slot of r].
// Reads      x: E, [T, B, D*G*H] in either layout; dgates: E [T, B, slots*H], zero past a sequence's length.
// Writes     wx: A [T, B, G*H]; dx as x.
// Launch     grid (ceil(G*H / 128), min(T*B, 65535), D), block 128.
// Numerics   None.
// Oracle     src/backend/reference/, tests/operator/backends/.
#include "params.cuh"

template <class E> DEVICE void read_gates(const GatesParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= p.columns) return;
    V* const wx = static_cast<V*>(p.gates[blockIdx.z]);
    for (u32 r = blockIdx.y; r < p.row_count; r += gridDim.y) {
        const u64 from = row_offset(p.x, r) + u64(blockIdx.z) * p.columns + column;
        wx[u64(r) * p.columns + column] = load<E>(p.x.data, from);
    }
}

template <class E> DEVICE void write_gate_gradients(const GatesParams& p) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x, H = p.hidden_size;
    if (column >= p.columns) return;
    const u32 gate = column / H, last = p.columns / H - 1;
    const u32 slot = !p.split ? gate : gate == last ? 0 : gate + 1;
    for (u32 r = blockIdx.y; r < p.row_count; r += gridDim.y) {
        const u64 to = row_offset(p.x, r) + u64(blockIdx.z) * p.columns + column;
        store<E>(const_cast<void*>(p.x.data), to, load<E>(p.gates[blockIdx.z], (u64(r) * p.slots + slot) * H + column % H));
    }
}
