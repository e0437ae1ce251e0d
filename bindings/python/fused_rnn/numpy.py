"""The operators on NumPy arrays, without torch: forward, and forward with gradients."""

from collections import namedtuple

import numpy as np

from . import _native
from ._plans import Plans

__all__ = ["Gradients", "Output", "Recurrent", "Tape"]

Output = namedtuple("Output", "y hn cn")
Output.__doc__ = "Output `[T, B, D * P]` (`[B, T, D * P]` where batch_first), final state `[L * D, B, P]`, final states beside it or None."
Gradients = namedtuple("Gradients", "x h0 c0 weights")
Gradients.__doc__ = "Gradients of the input, of the initial states, and of all weights in one array, laid out as `Recurrent.weights`."

_DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}


def _span(array):
    """Where an array begins, and its bytes: the native part checks them."""
    return None if array is None else (array.ctypes.data, array.nbytes)


class Recurrent:
    """A recurrent operator with its weights.

    `cell` is `rnn`, `lstm`, `gru`, `slstm`, `mgu` or `ind_rnn`. Options have the names of the operator's: `num_layers`, `direction`
    (`"forward"`, `"reverse"`, `"bidirectional"`), `bias` (`"double"`, `"single"`, `"none"`), `batch_first`, `activation`,
    `gate_activation`, `output_activation`, `dropout`, `proj_size`, `peepholes`, `cell_clip`, `gate_clip`, `reset`, `heads`, `memory` and the
    others of `fused_rnn.torch.Recurrent`.

    `weights` is one array, `named_weights()` the tensors in it, with PyTorch's names, shapes and order of gates. They begin uniform between plus and
    minus one over the root of `hidden_size`, drawn from `np.random.default_rng(seed)`. `threads` 0 is as many as the machine runs at once.
    """

    def __init__(self, cell, input_size, hidden_size, *, dtype=np.float32, threads=0, seed=None, **options):
        self.dtype = np.dtype(dtype)
        if self.dtype not in _DTYPES:
            raise TypeError(f"dtype: expected float32 or float64, got {self.dtype}")
        self.threads = threads
        self.batch_first = bool(options.get("batch_first", False))
        self._operator = _native.Operator(cell, input_size, hidden_size, **options)
        self._plans = Plans()
        bound = hidden_size**-0.5
        self.weights = np.random.default_rng(seed).uniform(-bound, bound, self._operator.weights_len).astype(self.dtype)

    def named_weights(self, flat=None):
        """Views of the tensors in `weights`, or in another such array, such as its gradient, by PyTorch's names."""
        flat = self.weights if flat is None else flat
        entries = self._operator.weights()
        return {name: flat[at : at + int(np.prod(size))].reshape(size) for name, size, at in entries}

    def _array(self, name, value, shape):
        if value is None:
            return None
        value = np.ascontiguousarray(value, dtype=self.dtype)
        if value.shape != tuple(shape):
            raise _native.Error(f"{name}: expected shape {list(shape)}, got {list(value.shape)}")
        return value

    def _arguments(self, training, x, h0, c0, lengths, resets):
        if self.weights.dtype != self.dtype or self.weights.shape != (self._operator.weights_len,):
            raise _native.Error(f"weights: expected {self._operator.weights_len} elements of {self.dtype} in one axis")
        weights = np.ascontiguousarray(self.weights)
        x = np.ascontiguousarray(x, dtype=self.dtype)
        if x.ndim != 3:
            raise _native.Error(f"x: expected three axes, got shape {list(x.shape)}")
        outer, inner = x.shape[:2]
        seq_len, batch = (inner, outer) if self.batch_first else (outer, inner)
        key = (seq_len, batch, training)
        found = self._plans.get(key)
        if found is None:
            found = self._plans.make(
                key, self._operator, "cpu", self.threads, _DTYPES[self.dtype], seq_len, batch, training
            )
        self._array("x", x, tuple(found.plan.x_shape))
        if c0 is not None and not found.c[2]:
            raise _native.Error("c0: the cell has no states beside h")
        h0, c0 = self._array("h0", h0, found.h), self._array("c0", c0, found.c)
        if lengths is not None:
            lengths = np.asarray(lengths)
            if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
                raise _native.Error(f"lengths: expected {batch} whole numbers, got {lengths.dtype} {list(lengths.shape)}")
            if (lengths < 1).any() or (lengths > seq_len).any():
                raise _native.Error(f"lengths: expected 1 to {seq_len}, got {lengths.tolist()}")
            lengths = np.ascontiguousarray(lengths, dtype=np.uint32)
        if resets is not None:
            resets = np.asarray(resets)
            expected = (batch, seq_len) if self.batch_first else (seq_len, batch)
            if resets.shape != expected:
                raise _native.Error(f"resets: expected shape {list(expected)}, got {list(resets.shape)}")
            resets = np.ascontiguousarray((resets.T if self.batch_first else resets) != 0, dtype=np.uint8)
        outputs = Output(
            np.empty(found.y, self.dtype), np.empty(found.h, self.dtype), np.empty(found.c, self.dtype) if found.c[2] else None
        )
        return found.plan, (weights, x, h0, c0, lengths, resets), outputs

    def forward(self, x, h0=None, c0=None, *, lengths=None, resets=None):
        """Output and final states, without dropout.

        `x` `[T, B, I]`, or `[B, T, I]` where `batch_first`; `h0` `[L * D, B, P]`, `c0` the states beside it; `lengths` `[B]`, the valid steps
        of each sequence; `resets` `[T, B]` (`[B, T]`), true where the state begins anew before the step."""
        plan, inputs, outputs = self._arguments(False, x, h0, c0, lengths, resets)
        plan.forward(*map(_span, (*inputs, *outputs)))
        return outputs

    __call__ = forward

    def forward_training(self, x, h0=None, c0=None, *, lengths=None, resets=None, dropout_seed=0):
        """The same with dropout, and a Tape that gives gradients."""
        plan, inputs, outputs = self._arguments(True, x, h0, c0, lengths, resets)
        reserve = plan.new_reserve()
        plan.forward_training(*map(_span, (*inputs, *outputs)), dropout_seed, reserve)
        return outputs, Tape(plan, inputs, outputs, dropout_seed, reserve)


class Tape:
    """A forward pass that gradients can be taken of. Weights and inputs must not change before."""

    def __init__(self, plan, inputs, outputs, seed, reserve):
        self._plan, self._inputs, self._outputs, self._seed, self._reserve = plan, inputs, outputs, seed, reserve

    def backward(self, dy=None, dhn=None, dcn=None):
        """Gradients, from those of `y`, `hn` and `cn`; absent ones are zero. A second time it runs forward again."""
        plan, (weights, x, h0, c0, lengths, resets) = self._plan, self._inputs
        reserve, self._reserve = self._reserve, None
        if reserve is None:
            reserve, again = plan.new_reserve(), np.empty_like(self._outputs.y)
            inputs = map(_span, self._inputs)
            plan.forward_training(*inputs, _span(again), None, None, self._seed, reserve)
        given = []
        for name, gradient, of in zip(("dy", "dhn", "dcn"), (dy, dhn, dcn), self._outputs):
            if gradient is not None and of is None:
                raise _native.Error(f"{name}: the cell has no states beside h")
            gradient = None if gradient is None else np.ascontiguousarray(gradient, dtype=x.dtype)
            if gradient is not None and gradient.shape != of.shape:
                raise _native.Error(f"{name}: expected shape {list(of.shape)}, got {list(gradient.shape)}")
            given.append(gradient)
        y, hn, cn = self._outputs
        made = Gradients(
            np.empty_like(x), np.empty_like(hn), None if cn is None else np.empty_like(cn), np.empty_like(weights)
        )
        arrays = (weights, x, y, h0, c0, lengths, resets, *given, *made)
        plan.backward(*map(_span, arrays), reserve)
        return made
