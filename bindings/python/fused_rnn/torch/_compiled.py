"""The operator as custom operations of torch, for torch.compile and torch.export: opaque to them, so that no graph breaks.

Their state is in tensors alone. The reserve's last element says whether a backward pass has used it up; then backward runs forward again, so that
its result depends on its arguments only.
"""

import functools
import json
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .. import _native
from .._plans import Plans
from ._pass import check_memory, check_weights, held, span

DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


@functools.lru_cache(maxsize=256)
def operator(config):
    """The operator of a configuration, with its plans."""
    return _native.Operator(**json.loads(config)), Plans()


@functools.lru_cache(maxsize=256)
def layout(config):
    """Names and shapes of its weights."""
    return [(name, tuple(size)) for name, size, _ in operator(config)[0].weights()]


def check_lengths(lengths, seq_len):
    """Raises where a length on the CPU is not of the sequence."""
    for at, length in enumerate(lengths.tolist()):
        if not 1 <= length <= seq_len:
            raise _native.Error(f"lengths[{at}]: expected 1..={seq_len}, got {length}")


def joined(config, x, weights):
    """The weights in one buffer."""
    check_weights(weights, layout(config), x)
    check_memory(weights, layout(config))
    return torch.cat([weight.reshape(-1) for weight in weights])


def place(x):
    """Device, number and stream of a tensor's work."""
    if x.device.type == "cpu":
        return "cpu", torch.get_num_threads(), 0
    if x.device.type == "cuda":
        return "cuda", x.device.index, torch.cuda.current_stream(x.device).cuda_stream
    raise RuntimeError(f"fused_rnn: tensors on {x.device} are not supported; use the CPU or CUDA")


def shape_of(config, x, training):
    """The plan for an input."""
    op, plans = operator(config)
    device, number, stream = place(x)
    outer, inner = x.shape[0], x.shape[1]
    seq_len, batch = (inner, outer) if json.loads(config).get("batch_first") else (outer, inner)
    key = (device, number, x.dtype, seq_len, batch, training)
    found = plans.get(key)
    if found is None:
        found = plans.make(key, op, device, number, DTYPES[x.dtype], seq_len, batch, training, stream)
    return found, stream


def _scratch(shape, x):
    if x.is_cuda:
        return torch.empty(max(shape.workspace, 1), dtype=x.dtype, device=x.device)
    return None


def _seed(seed):
    return 0 if seed is None else int(seed.item())


@torch.library.custom_op("fused_rnn::forward", mutates_args=())
def forward(
    x: Tensor,
    h0: Optional[Tensor],
    c0: Optional[Tensor],
    lengths: Optional[Tensor],
    resets: Optional[Tensor],
    weights: List[Tensor],
    seed: Optional[Tensor],
    config: str,
    training: bool,
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, hn, cn and, in training, the reserve."""
    shape, stream = shape_of(config, x, training)
    flat = joined(config, x, weights)
    if lengths is not None and lengths.is_cpu:
        check_lengths(lengths, x.shape[1] if json.loads(config).get("batch_first") else x.shape[0])
    x, h0, c0 = (None if one is None else one.contiguous() for one in (x, h0, c0))
    y, hn = x.new_empty(shape.y), x.new_empty(shape.h)
    cn = x.new_empty(shape.c if shape.c[2] else (0,))
    workspace = _scratch(shape, x)
    spans = (span(flat), held(x), held(h0), held(c0), held(lengths), held(resets))
    outputs = (span(y), span(hn), span(cn) if shape.c[2] else None)
    if not training:
        shape.plan.forward(*spans, *outputs, span(workspace), stream)
        return y, hn, cn, x.new_empty(0)
    reserve = x.new_zeros(shape.reserve + 1)
    kept = shape.plan.new_reserve(held(reserve))
    shape.plan.forward_training(*spans, *outputs, _seed(seed), kept, span(workspace), stream)
    return y, hn, cn, reserve


@forward.register_fake
def _(x, h0, c0, lengths, resets, weights, seed, config, training):
    check_weights(weights, layout(config), x)
    options = json.loads(config)
    directions = 2 if options.get("direction") == "bidirectional" else 1
    outer, inner = x.shape[0], x.shape[1]
    batch = outer if options.get("batch_first") else inner
    rows = options.get("num_layers", 1) * directions
    output = options.get("proj_size") or options["hidden_size"]
    other = operator(config)[0].cell_state
    y, hn = x.new_empty((outer, inner, directions * output)), x.new_empty((rows, batch, output))
    cn = x.new_empty((rows, batch, other) if other else (0,))
    if not training:
        return y, hn, cn, x.new_empty(0)
    if all(isinstance(size, int) for size in (outer, inner)) and x.device.type == "cpu":
        return y, hn, cn, x.new_empty(shape_of(config, x, True)[0].reserve + 1)
    return y, hn, cn, x.new_empty(torch.library.get_ctx().new_dynamic_size())


@torch.library.custom_op("fused_rnn::backward", mutates_args=())
def backward(
    dy: Optional[Tensor],
    dhn: Optional[Tensor],
    dcn: Optional[Tensor],
    x: Tensor,
    y: Tensor,
    h0: Optional[Tensor],
    c0: Optional[Tensor],
    lengths: Optional[Tensor],
    resets: Optional[Tensor],
    weights: List[Tensor],
    reserve: Tensor,
    seed: Optional[Tensor],
    config: str,
) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dh0, dc0 and the gradients of all weights in one buffer."""
    shape, stream = shape_of(config, x, True)
    flat = joined(config, x, weights)
    x, y, h0, c0 = (None if one is None else one.contiguous() for one in (x, y, h0, c0))
    workspace = _scratch(shape, x)
    inputs = (held(h0), held(c0), held(lengths), held(resets))
    if reserve[-1].item() == 0:
        kept = shape.plan.filled_reserve(held(reserve), _seed(seed))
    else:
        kept = shape.plan.new_reserve(held(reserve))
        again = torch.empty_like(y)
        shape.plan.forward_training(
            span(flat), held(x), *inputs, span(again), None, None, _seed(seed), kept, span(workspace), stream
        )
    dx, dh0 = torch.empty_like(x), x.new_empty(shape.h)
    dc0 = x.new_empty(shape.c if shape.c[2] else (0,))
    dweights = torch.empty_like(flat)
    gradients = [None if gradient is None else gradient.contiguous() for gradient in (dy, dhn, dcn)]
    shape.plan.backward(
        span(flat),
        held(x),
        held(y),
        *inputs,
        held(gradients[0]),
        held(gradients[1]),
        held(gradients[2]) if shape.c[2] else None,
        span(dx),
        span(dh0),
        span(dc0) if shape.c[2] else None,
        span(dweights),
        kept,
        span(workspace),
        stream,
    )
    # Not seen by autograd: the operation gives the same with or without it.
    reserve.data[-1] = 1
    return dx, dh0, dc0, dweights


@backward.register_fake
def _(dy, dhn, dcn, x, y, h0, c0, lengths, resets, weights, reserve, seed, config):
    options = json.loads(config)
    directions = 2 if options.get("direction") == "bidirectional" else 1
    batch = x.shape[0] if options.get("batch_first") else x.shape[1]
    rows = options.get("num_layers", 1) * directions
    output = options.get("proj_size") or options["hidden_size"]
    op = operator(config)[0]
    dh0 = x.new_empty((rows, batch, output))
    dc0 = x.new_empty((rows, batch, op.cell_state) if op.cell_state else (0,))
    return torch.empty_like(x), dh0, dc0, x.new_empty(op.weights_len)


def _setup(ctx, inputs, output):
    x, h0, c0, lengths, resets, weights, seed, config, training = inputs
    y, _, _, reserve = output
    ctx.config, ctx.count, ctx.has = config, len(weights), [t is not None for t in (h0, c0, lengths, resets, seed)]
    present = [tensor for tensor in (h0, c0, lengths, resets, seed) if tensor is not None]
    ctx.save_for_backward(x, y, reserve, *present, *weights)
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dhn, dcn, _):
    x, y, reserve, *rest = ctx.saved_tensors
    rest = iter(rest)
    h0, c0, lengths, resets, seed = (next(rest) if has else None for has in ctx.has)
    weights = list(rest)
    dx, dh0, dc0, dweights = torch.ops.fused_rnn.backward(
        dy, dhn, dcn, x, y, h0, c0, lengths, resets, weights, reserve, seed, ctx.config
    )
    parts = [part.view(weight.shape) for part, weight in zip(dweights.split([w.numel() for w in weights]), weights)]
    return dx, None if h0 is None else dh0, None if c0 is None else dc0, None, None, parts, None, None, None


torch.library.register_autograd("fused_rnn::forward", _backward, setup_context=_setup)
