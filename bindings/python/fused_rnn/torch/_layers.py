"""The layers: torch.nn's, and those that torch has not."""

import json
import math
import numbers
import warnings
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from .. import _native
from .._plans import Plans
from . import _compiled
from ._compiled import DTYPES, check_lengths
from ._pass import Call, Pass, check_memory, check_weights, held

_get_num_threads = torch.get_num_threads
_is_grad_enabled = torch.is_grad_enabled
_is_compiling = torch.compiler.is_compiling
_is_tracing = torch.jit.is_tracing

# What parameters and plans are made for.
_FIXED = frozenset(
    ("cell", "input_size", "hidden_size", "num_layers", "bias", "bidirectional", "proj_size", "nonlinearity", "options")
)


def _checked_dropout(dropout):
    if not isinstance(dropout, numbers.Number) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError("dropout should be a number in range [0, 1] representing the probability of an element being zeroed")
    return float(dropout)


def _checked_batch_sizes(packed):
    """Raises where a PackedSequence is not one: torch does not look when it is made."""
    data, sizes = packed.data, packed.batch_sizes
    if data.dim() != 2:
        raise ValueError(f"data of a PackedSequence: expected 2 axes, got {list(data.shape)}")
    if sizes.dim() != 1 or sizes.dtype != torch.int64 or not sizes.is_cpu or not sizes.numel():
        raise ValueError(
            f"batch_sizes of a PackedSequence: expected int64 in one axis on the CPU, one or more, got {sizes.dtype} {list(sizes.shape)} "
            f"on {sizes.device}"
        )
    sizes = sizes.tolist()
    if sizes[-1] < 1 or any(one < other for one, other in zip(sizes, sizes[1:])):
        raise ValueError(f"batch_sizes of a PackedSequence: expected 1 or more, none greater than the one before, got {sizes}")
    if sum(sizes) != data.shape[0]:
        raise ValueError(f"batch_sizes of a PackedSequence: expected a sum of {data.shape[0]}, the rows of data, got {sum(sizes)}")
    for name in ("sorted_indices", "unsorted_indices"):
        indices = getattr(packed, name)
        if indices is None:
            continue
        if indices.dtype not in (torch.int64, torch.int32) or indices.dim() != 1 or sorted(indices.tolist()) != list(range(sizes[0])):
            raise ValueError(f"{name} of a PackedSequence: expected each of 0 to {sizes[0] - 1} once, got {indices.tolist()}")


class Recurrent(nn.Module):
    """A recurrent layer of any cell: `rnn`, `lstm`, `gru`, `slstm`, `mgu`, `ind_rnn`.

    Arguments up to `dtype` are those of torch.nn.LSTM. Options are keyword arguments with the names of the operator's: `gate_activation`,
    `activation`, `output_activation` (`"tanh"`, `"hard_sigmoid:0.2:0.5"`, …), `gate_clip`, `padded_output` (`"zero"`, `"hold"`), `memory`
    (`"full"`, `"checkpoints:STEPS"`, `"light:STEPS"`, `"within:BYTES"`), `heads`; of the LSTM `peepholes`, `coupled_input_forget`,
    `cell_clip`; of the GRU `reset` (`"after"`, `"before"`); of the sLSTM `forget_gate` (`"sigmoid"`, `"exponential"`).

    A call is `layer(x, hx, lengths=None, resets=None)`, with `x` `[T, B, I]`, `[B, T, I]` where `batch_first`, `[T, I]`, or a
    PackedSequence; `hx` is `h0`, or `(h0, c0)` of cells with more states than their output. `lengths` `[B]` are the valid steps of each
    sequence, in any order: outputs past them are zero, and final states are those of the last valid step. `resets` `[T, B]` (`[B, T]` where
    `batch_first`) is true where the state is set back to the initial one before the step.
    """

    def __init__(
        self,
        cell,
        input_size,
        hidden_size,
        num_layers=1,
        bias=True,
        batch_first=False,
        dropout=0.0,
        bidirectional=False,
        proj_size=0,
        device=None,
        dtype=None,
        **options,
    ):
        super().__init__()
        dropout = _checked_dropout(dropout)
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers greater than 1, "
                f"but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        for name, value, kind in (
            ("bias", bias, bool),
            ("batch_first", batch_first, bool),
            ("input_size", input_size, int),
            ("hidden_size", hidden_size, int),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")
        for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if value <= 0:
                raise ValueError(f"{name} must be greater than zero")
        if proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable projections")
        if proj_size >= hidden_size:
            raise ValueError("proj_size has to be smaller than hidden_size")
        self.cell = cell
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bool(bidirectional)
        self.proj_size = proj_size
        self.options = {name: value for name, value in options.items() if value is not None}
        self._prepare()
        for name, size, _ in self._operator.weights():
            setattr(self, name, Parameter(torch.empty(size, device=device, dtype=dtype)))
        self.reset_parameters()
        self.flatten_parameters()

    def _config(self, dropout):
        config = dict(
            cell=self.cell,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bias="double" if self.bias else "none",
            batch_first=self.batch_first,
            dropout=dropout if self.num_layers > 1 else 0.0,
            direction="bidirectional" if self.bidirectional else "forward",
            proj_size=self.proj_size,
        )
        config.update(self.options)
        return json.dumps(config)

    def _prepare(self):
        """What is not part of the state: operators, plans, the one buffer."""
        self._configs = self._config(0.0), self._config(self.dropout)
        self._drops = self.dropout > 0 and self.num_layers > 1
        self._operators = tuple(_native.Operator(**json.loads(config)) for config in self._configs)
        self._operator = self._operators[0]
        self._has_c = self._operator.cell_state > 0
        weights = self._operator.weights()
        self._names = [name for name, _, _ in weights]
        # Sizes, strides and offsets of the weights in one buffer.
        self._entries = [(tuple(s), tuple(math.prod(s[i + 1 :]) for i in range(len(s))), at) for _, s, at in weights]
        self._plans = Plans(), Plans()
        self._sizes = [size for size, _, _ in self._entries]
        self._flat = None
        self._starts = None
        self._packed = None

    def __setattr__(self, name, value):
        # While it is made or unpickled, all is set; then what plans are made for stays.
        if "_operator" in self.__dict__:
            if name in _FIXED and name in self.__dict__ and value != self.__dict__[name]:
                raise AttributeError(
                    f"{name} of {type(self).__name__} is {self.__dict__[name]!r} and cannot be changed, since its weights have been made for it: "
                    "make another layer"
                )
            if name in ("dropout", "batch_first"):
                return self._set_option(name, value)
        super().__setattr__(name, value)

    def _set_option(self, name, value):
        """dropout and batch_first may change at any time: other operators over the same weights."""
        if name == "dropout":
            value = _checked_dropout(value)
        elif not isinstance(value, bool):
            raise TypeError(f"batch_first should be of type bool, got: {type(value).__name__}")
        if value == self.__dict__[name]:
            return
        super().__setattr__(name, value)
        flat, starts, packed = self._flat, self._starts, self._packed
        self._prepare()
        self._flat, self._starts = flat, starts
        self._packed = None if packed is None else {}

    def __getstate__(self):
        state = self.__dict__.copy()
        for name in (
            "_configs", "_drops", "_operators", "_operator", "_has_c", "_names", "_entries", "_sizes", "_plans", "_flat", "_starts",
            "_packed",
        ):
            state.pop(name, None)
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        self._prepare()
        self.flatten_parameters()

    def _apply(self, fn, recurse=True):
        self._flat = None
        super()._apply(fn, recurse)
        self.flatten_parameters()
        return self

    def reset_parameters(self):
        """Uniform between plus and minus one over the root of hidden_size, as torch.nn's."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def flatten_parameters(self):
        """Puts all weights into one buffer, of which the parameters become views: then a call copies none. It is done where they are made,
        moved and unpickled; to be called where they have been replaced one by one."""
        self._flat = self._starts = None
        weights = [self._parameters.get(name) for name in self._names]
        first = weights[0]
        if any(w is None or w.device != first.device or w.dtype != first.dtype or w.layout != torch.strided for w in weights):
            return
        if first.device.type not in ("cpu", "cuda") or len({w.data_ptr() for w in weights}) != len(weights):
            return
        if type(first.data) is not Tensor or [w.shape for w in weights] != self._sizes:
            return
        try:
            check_memory(weights, self._named_sizes())
        except RuntimeError:
            # The next call says it.
            return
        with torch.no_grad():
            flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
            for weight, (size, stride, offset) in zip(weights, self._entries):
                weight.data = flat.as_strided(size, stride, offset)
        self._flat = flat
        self._starts = [weight.data_ptr() for weight in weights]

    @property
    def all_weights(self):
        """The weights, a list for each layer and direction."""
        count = len(self._names) // (self.num_layers * (2 if self.bidirectional else 1))
        weights = self._weights()
        return [weights[at : at + count] for at in range(0, len(weights), count)]

    def _weights(self):
        parameters = self._parameters
        try:
            return [parameters[name] for name in self._names]
        except KeyError:
            # Parametrized: spectral norm and the like.
            return [getattr(self, name) for name in self._names]

    def extra_repr(self):
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False),
        ):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text + "".join(f", {name}={value!r}" for name, value in self.options.items())

    @contextmanager
    def packed_weights(self):
        """Inside, calls without gradients use the weights as they are now, packed once: for calls of few steps. CPU only.

        Weights that change inside are not seen."""
        if self._packed is not None:
            yield self
            return
        self._packed = {}
        try:
            yield self
        finally:
            self._packed = None

    def forward(self, input, hx=None, *, lengths=None, resets=None):
        """Output and final state, as torch.nn.LSTM, GRU and RNN give them."""
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx, lengths, resets)
        axes = input.dim()
        if axes == 3:
            return self._run(input, hx, lengths, resets)
        if axes != 2:
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {axes}D tensor")
        return self._forward_unbatched(input, hx, lengths, resets)

    def _forward_unbatched(self, input, hx, lengths, resets):
        axis = 0 if self.batch_first else 1
        for state in (hx if isinstance(hx, (tuple, list)) else (hx,)):
            if state is not None and state.dim() != 2:
                raise RuntimeError(f"For unbatched 2-D input, hx should also be 2-D but got {state.dim()}-D tensor")
        if isinstance(hx, (tuple, list)):
            hx = tuple(state.unsqueeze(1) for state in hx)
        elif hx is not None:
            hx = hx.unsqueeze(1)
        if resets is not None:
            resets = torch.as_tensor(resets).unsqueeze(axis)
        if lengths is not None:
            lengths = torch.as_tensor(lengths).reshape(1)
        y, state = self._run(input.unsqueeze(axis), hx, lengths, resets)
        if isinstance(state, tuple):
            return y.squeeze(axis), tuple(one.squeeze(1) for one in state)
        return y.squeeze(axis), state.squeeze(1)

    def _forward_packed(self, input, hx, lengths, resets):
        if lengths is not None or resets is not None:
            raise ValueError("lengths and resets are for padded input; a PackedSequence has lengths of its own")
        _checked_batch_sizes(input)
        order, back = input.sorted_indices, input.unsorted_indices
        sorted_input = PackedSequence(input.data, input.batch_sizes)
        x, lengths = pad_packed_sequence(sorted_input, batch_first=self.batch_first)
        if order is not None and hx is not None:
            hx = tuple(s.index_select(1, order) for s in hx) if isinstance(hx, (tuple, list)) else hx.index_select(1, order)
        y, state = self._run(x, hx, lengths, None)
        packed = pack_padded_sequence(y, lengths, batch_first=self.batch_first)
        output = PackedSequence(packed.data, packed.batch_sizes, order, back)
        if back is not None:
            state = tuple(s.index_select(1, back) for s in state) if self._has_c else state.index_select(1, back)
        return output, state

    def _states(self, x, hx, rows, batch):
        """h0 and c0, checked."""
        if self._has_c:
            if not isinstance(hx, (tuple, list)) or len(hx) != 2:
                raise RuntimeError(f"hx of {type(self).__name__}: expected a tuple (h0, c0)")
            pairs = (("h0", hx[0], self.proj_size or self.hidden_size), ("c0", hx[1], self._operator.cell_state))
        else:
            if not isinstance(hx, Tensor):
                raise RuntimeError(f"hx of {type(self).__name__}: expected a tensor h0, got {type(hx).__name__}")
            pairs = (("h0", hx, self.proj_size or self.hidden_size),)
        states = []
        for name, state, width in pairs:
            if tuple(state.shape) != (rows, batch, width):
                if state.dim() != 3:
                    raise RuntimeError(f"For batched 3-D input, hx should also be 3-D but got {state.dim()}-D tensor")
                raise RuntimeError(f"Expected hidden size of {name} {(rows, batch, width)}, got {list(state.shape)}")
            if state.dtype != x.dtype or state.device != x.device:
                raise ValueError(
                    f"{name} is {state.dtype} on {state.device}, but the input {x.dtype} on {x.device}: convert {name}"
                )
            states.append(state.contiguous())
        return states if self._has_c else (states[0], None)

    def _sequences(self, x, lengths, resets, seq_len, batch):
        """Lengths as int32, checked where they are on the CPU, and resets as bytes, sequence-major, on the input's device."""
        if lengths is not None:
            lengths = torch.as_tensor(lengths)
            if lengths.shape != (batch,) or lengths.is_floating_point() or lengths.is_complex():
                raise RuntimeError(f"lengths: expected {batch} whole numbers, got {lengths.dtype} {list(lengths.shape)}")
            if _is_compiling() or not lengths.is_cpu:
                # Checked in the operation, where what does not fit in 32 bits is out of range still.
                lengths = lengths.to(torch.int64).clamp(-(1 << 31), (1 << 31) - 1)
            else:
                check_lengths(lengths, seq_len)
            lengths = lengths.to(device=x.device, dtype=torch.int32).contiguous()
        if resets is not None:
            resets = torch.as_tensor(resets)
            expected = (batch, seq_len) if self.batch_first else (seq_len, batch)
            if tuple(resets.shape) != expected:
                raise RuntimeError(f"resets: expected {list(expected)}, got {list(resets.shape)}")
            resets = (resets.t() if self.batch_first else resets).to(x.device).ne(0).to(torch.uint8).contiguous()
        return lengths, resets

    def _run(self, x, hx, lengths, resets):
        weights = self._weights()
        for weight in weights:
            if weight is None:
                check_weights(weights, self._named_sizes(), x)
        dtype = x.dtype
        if dtype != weights[0].dtype:
            if any(weight.dtype == dtype for weight in weights):
                check_weights(weights, self._named_sizes(), x)
            raise ValueError(
                f"RNN input dtype ({dtype}) does not match weight dtype ({weights[0].dtype}). "
                f"Convert input: input.to({weights[0].dtype}), or convert model: model.to({dtype})"
            )
        outer, inner, width = x.shape
        if width != self.input_size:
            raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {width}")
        seq_len, batch = (inner, outer) if self.batch_first else (outer, inner)
        h0 = c0 = None
        if hx is not None:
            h0, c0 = self._states(x, hx, self.num_layers * (2 if self.bidirectional else 1), batch)
        if lengths is not None or resets is not None:
            lengths, resets = self._sequences(x, lengths, resets, seq_len, batch)
        if _is_compiling():
            return self._run_compiled(x.contiguous(), h0, c0, lengths, resets, weights)

        if _is_tracing():
            raise RuntimeError(
                "fused_rnn: torch.jit.trace and what is built on it cannot record this layer; use torch.compile or torch.export, or torch.nn's "
                "layer with the same state_dict"
            )
        x = x.contiguous()
        grad = _is_grad_enabled() and (
            x.requires_grad
            or any([w.requires_grad for w in weights])
            or (h0 is not None and h0.requires_grad)
            or (c0 is not None and c0.requires_grad)
        )
        drops = self._drops and self.training
        training = grad or drops
        if x.is_cpu:
            device, number, stream = "cpu", _get_num_threads(), 0
        else:
            device, number, stream = _compiled.place(x)
        if [w.shape for w in weights] == self._sizes and self._in_place(weights):
            flat = self._flat
        else:
            flat = self._gathered(x, weights)
        plans = self._plans[drops]
        key = (device, number, dtype, seq_len, batch, training)
        shape = plans.get(key)
        if shape is None:
            if dtype not in DTYPES:
                raise RuntimeError(f"fused_rnn: elements of {dtype} are not supported; use float32 or float64")
            if flat.device != x.device:
                raise RuntimeError(f"the input is on {x.device}, but the weights on {flat.device}: move one of them")
            shape = plans.make(key, self._operators[drops], device, number, DTYPES[dtype], seq_len, batch, training, stream)
        elif flat.device != x.device:
            raise RuntimeError(f"the input is on {x.device}, but the weights on {flat.device}: move one of them")
        has_c = self._has_c
        if grad:
            seed = int(torch.randint(1 << 62, ())) if drops else 0
            call = Call(shape, flat, lengths, resets, seed, stream, has_c, self._entries)
            outputs = Pass.apply(call, x, h0, c0, *weights)
            return (outputs[0], outputs[1:]) if has_c else outputs
        if self._packed is not None and not training:
            shape, flat = self._with_weights(key, shape, flat)
        call = Call(shape, flat, lengths, resets, 0, stream, has_c, None)
        y, hn, cn = call.outputs(x)
        if training:
            call.seed = int(torch.randint(1 << 62, ()))
            reserve = call.new_reserve(x)
            call.forward(x, h0, c0, y, hn, cn, reserve[0])
        else:
            call.forward(x, h0, c0, y, hn, cn)
        return (y, (hn, cn)) if has_c else (y, hn)

    def _named_sizes(self):
        return list(zip(self._names, self._sizes))

    def _in_place(self, weights):
        """Whether weights of the right shapes are still the views of the one buffer."""
        try:
            return [w.data_ptr() for w in weights] == self._starts and False not in [w.is_contiguous() for w in weights]
        except RuntimeError:
            # Those without storage have no address.
            return False

    def _gathered(self, x, weights):
        expected = self._named_sizes()
        check_weights(weights, expected, x)
        check_memory(weights, expected)
        with torch.no_grad():
            return torch.cat([weight.detach().reshape(-1) for weight in weights])

    def _with_weights(self, key, shape, flat):
        if key[0] != "cpu":
            raise RuntimeError("packed_weights() on a GPU is not supported: call the layer without")
        found = self._packed.get(key)
        if found is None:
            from .._plans import Shape

            found = self._packed[key] = Shape(shape.plan.with_weights(held(flat)))
        return found, None

    def _run_compiled(self, x, h0, c0, lengths, resets, weights):
        drops = self._drops and self.training
        seed = torch.randint(1 << 62, (1,), dtype=torch.int64) if drops else None
        training = drops or torch.is_grad_enabled()
        config = self._configs[1 if drops else 0]
        y, hn, cn, _ = torch.ops.fused_rnn.forward(x, h0, c0, lengths, resets, weights, seed, config, training)
        return (y, (hn, cn)) if self._has_c else (y, hn)


class LSTM(Recurrent):
    """torch.nn.LSTM, and the options of the operator as keyword arguments (see Recurrent)."""

    mode = "LSTM"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, proj_size=0,
        device=None, dtype=None, **options,
    ):
        super().__init__(
            "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype, **options
        )


class GRU(Recurrent):
    """torch.nn.GRU, and the options of the operator as keyword arguments (see Recurrent)."""

    mode = "GRU"

    def __init__(
        self, input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, device=None,
        dtype=None, **options,
    ):
        if "proj_size" in options:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__(
            "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype, **options
        )


class RNN(Recurrent):
    """torch.nn.RNN, and the options of the operator as keyword arguments (see Recurrent)."""

    def __init__(
        self, input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False, dropout=0.0, bidirectional=False,
        device=None, dtype=None, **options,
    ):
        if "proj_size" in options:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'; activation= takes others.")
        if nonlinearity != "tanh":
            options.setdefault("activation", nonlinearity)
        super().__init__(
            "rnn", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype, **options
        )
        self.nonlinearity = nonlinearity

    @property
    def mode(self):
        """As torch.nn.RNN's."""
        return "RNN_RELU" if self.nonlinearity == "relu" else "RNN_TANH"


class SLSTM(Recurrent):
    """xLSTM's sLSTM. Its state is `(h, c)`, where `c` holds the states beside h side by side, `[layers * directions, B, 3 * hidden_size]`:
    the cell state, the normalizer and the stabilizer. `forget_gate="exponential"` for the other forget gate."""

    def __init__(self, input_size, hidden_size, *args, **options):
        super().__init__("slstm", input_size, hidden_size, *args, **options)


class MGU(Recurrent):
    """The minimal gated unit: one gate (https://arxiv.org/abs/1603.09420)."""

    def __init__(self, input_size, hidden_size, *args, **options):
        super().__init__("mgu", input_size, hidden_size, *args, **options)


class IndRNN(Recurrent):
    """The independently recurrent network (https://arxiv.org/abs/1803.04831): a unit sees no other's state. With relu, as in the paper;
    `activation=` for another."""

    def __init__(self, input_size, hidden_size, *args, **options):
        options.setdefault("activation", "relu")
        super().__init__("ind_rnn", input_size, hidden_size, *args, **options)
