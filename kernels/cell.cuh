// cell.cuh - what a step of a unit reads and gives: between the step kernels, which know memory, and cells/*.cuh, which know equations.
//
// A cell is a class of static functions on registers, derived from CellBase<gates, states beside h>. Gates are numbered in the
// order of the weights' rows; the candidate, where its recurrent product is not as every gate's (SPLIT), is the last one, N. With
// such a product apart from W x (`apart`; GRU, reset after) a step is: first, rest. Where there is a second product R q within
// the step: first, which gives q; product; first again and rest. Backward: candidate_gradient; product dq = R^T da_N; backward.
#pragma once
#include "activations.cuh"

constexpr int MOST_GATES = 4, MOST_STATES = 3, MOST_PEEPHOLES = 3;

template <class V> struct UnitForward {
    V a[MOST_GATES];     // pre-activations, W x + R h + b; a cell adds peepholes. a[N] lacks q where that is apart
    V gate[MOST_GATES];  // their activations
    V q;                 // R h + b_hh of the candidate where that is apart; what a second product takes
    bool apart;
    V h;                   // of the step before, then of this one (before a projection)
    V state[MOST_STATES];  // the states beside h, before and after
    V peephole[MOST_PEEPHOLES];
    bool peepholes;  // whether there are some
};

template <class V> struct UnitBackward {
    V saved[MOST_GATES];  // of the gates, see SavedGates
    V q;
    bool apart;
    V h_prev;
    V state[MOST_STATES], state_prev[MOST_STATES];  // after the step and before it
    V peephole[MOST_PEEPHOLES];
    bool peepholes;
    V dh;                  // gradient of the output; then that part of the gradient of h_prev which needs no product
    V dstate[MOST_STATES];  // gradients of the states beside h, after the step and then before it
    V da[MOST_GATES];       // gradients of the pre-activations
    V dq;                   // gradient of q: given where there is a second product, computed where q is apart
};

template <int GATES_, int STATES_> struct CellBase {
    static constexpr int GATES = GATES_;           // rows of the weights, times H
    static constexpr int STATES = STATES_;         // beside h
    static constexpr bool CELL_STATE = STATES > 0;
    static constexpr int GRADIENT_SLOTS = GATES_;  // of dgates, times H
    static constexpr bool SPLIT = false;           // whether the candidate's recurrent product is not as every gate's
    static constexpr bool READS_H = false;         // whether a step's arithmetic, apart from products, reads h_prev
    static constexpr bool PROJECTION = false, PEEPHOLES = false;  // whether there are these options

    template <class F, class V> static DEVICE void first(const F&, UnitForward<V>&) {}
    template <class F, class V> static DEVICE V candidate_gradient(const F&, const UnitBackward<V>&) { return V(0); }
};

// The slot of dgates that has a gate's gradients: of a SPLIT cell the candidate's is the first; q's, where there is one, is the last.
template <class Cell> DEVICE constexpr u32 gradient_slot(u32 gate) {
    return !Cell::SPLIT ? gate : gate + 1 == u32(Cell::GATES) ? 0 : gate + 1;
}
