"""The operator as a node of torch's autograd."""

import torch

_EMPTY = torch.empty


def span(tensor):
    """Where a tensor of this package begins, and its bytes: the native part checks them."""
    return None if tensor is None else (tensor.data_ptr(), tensor.nbytes)


def held(tensor):
    """The same of a tensor from outside, whose storage may have been resized under it: no more bytes than are there."""
    if tensor is None:
        return None
    bytes_, there = tensor.nbytes, tensor.untyped_storage().nbytes()
    if there != bytes_ or tensor.storage_offset():
        # A part of a larger one, or what is left of it.
        bytes_ = max(min(bytes_, there - tensor.storage_offset() * tensor.itemsize), 0)
    return tensor.data_ptr(), bytes_


def check_weights(weights, expected, like):
    """Raises where a weight is not what the layout has: `expected` are names and shapes, `like` the input."""
    if len(weights) != len(expected):
        raise RuntimeError(f"weights: expected {len(expected)} tensors, got {len(weights)}")
    for weight, (name, size, *_) in zip(weights, expected):
        if weight is None:
            raise RuntimeError(f"{name}: expected a tensor of shape {list(size)}, got None")
        if tuple(weight.shape) != tuple(size):
            raise RuntimeError(f"{name}: expected shape {list(size)}, got {list(weight.shape)}")
        if weight.dtype != like.dtype or weight.device != like.device or weight.layout != torch.strided:
            raise RuntimeError(
                f"{name} is {weight.dtype}, {weight.layout}, on {weight.device}: expected {like.dtype}, {torch.strided}, on {like.device}, as "
                "the input"
            )


def check_memory(weights, expected):
    """Raises where the storage of a weight is smaller than the weight: torch's own kernels do not look."""
    for weight, (name, *_) in zip(weights, expected):
        last = sum((size - 1) * stride for size, stride in zip(weight.shape, weight.stride())) + 1 if weight.numel() else 0
        needed = (weight.storage_offset() + last) * weight.itemsize
        there = weight.untyped_storage().nbytes()
        if there < needed:
            raise RuntimeError(f"{name}: expected {needed} bytes of memory for shape {list(weight.shape)}, got {there}: its storage was resized")


class Call:
    """What a forward pass and its backward have in common, besides tensors that have gradients."""

    __slots__ = ("shape", "flat", "lengths", "resets", "seed", "stream", "has_c", "entries")

    def __init__(self, shape, flat, lengths, resets, seed, stream, has_c, entries):
        self.shape, self.flat, self.lengths, self.resets = shape, flat, lengths, resets
        self.seed, self.stream, self.has_c, self.entries = seed, stream, has_c, entries

    def workspace(self, like):
        """Scratch on a GPU, of torch's allocator; on the CPU the native part has its own."""
        if like.is_cuda:
            return _EMPTY(max(self.shape.workspace, 1), dtype=like.dtype, device=like.device)
        return None

    def new_reserve(self, like):
        """An empty reserve, and the tensor that it is in, on a GPU."""
        if like.is_cuda:
            storage = _EMPTY(max(self.shape.reserve, 1), dtype=like.dtype, device=like.device)
            return self.shape.plan.new_reserve(span(storage)), storage
        return self.shape.plan.new_reserve(), None

    def forward(self, x, h0, c0, y, hn, cn, reserve=None):
        """Runs forward, in training where there is a reserve."""
        workspace = self.workspace(x)
        spans = (
            held(self.flat),
            held(x),
            held(h0) if h0 is not None else None,
            held(c0) if c0 is not None else None,
            span(self.lengths) if self.lengths is not None else None,
            span(self.resets) if self.resets is not None else None,
            (y.data_ptr(), y.nbytes),
            span(hn),
            span(cn) if cn is not None else None,
        )
        if reserve is None:
            self.shape.plan.forward(*spans, span(workspace), self.stream)
        else:
            self.shape.plan.forward_training(*spans, self.seed, reserve, span(workspace), self.stream)

    def outputs(self, x):
        """Tensors for y, hn and cn."""
        shape = self.shape
        y = x.new_empty(shape.y)
        hn = x.new_empty(shape.h)
        cn = x.new_empty(shape.c) if self.has_c else None
        return y, hn, cn


class Pass(torch.autograd.Function):
    """Forward and backward of the operator. `weights` are the parameters; what is computed with is `call.flat`, which holds them."""

    @staticmethod
    def forward(ctx, call, x, h0, c0, *weights):
        y, hn, cn = call.outputs(x)
        ctx.reserve = call.new_reserve(x)
        call.forward(x, h0, c0, y, hn, cn, ctx.reserve[0])
        ctx.call = call
        # The weights themselves, so that torch sees a change of them before backward.
        ctx.save_for_backward(x, y, h0, c0, *weights)
        ctx.set_materialize_grads(False)
        return (y, hn, cn) if call.has_c else (y, hn)

    @staticmethod
    def backward(ctx, dy, dhn, dcn=None):
        x, y, h0, c0, *weights = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return _gradients(ctx, x, y, h0, c0, dy, dhn, dcn)
        # create_graph=True: the gradients are right, but have none of their own.
        with torch.no_grad():
            gradients = _gradients(ctx, x, y, h0, c0, dy, dhn, dcn)
        present = [gradient for gradient in gradients if gradient is not None]
        given = [tensor for tensor in (x, h0, c0, dy, dhn, dcn, *weights) if tensor is not None]
        marked = iter(_Once.apply(len(present), *present, *given))
        return tuple(None if gradient is None else next(marked) for gradient in gradients)


class _Once(torch.autograd.Function):
    """Gradients that cannot be differentiated again."""

    @staticmethod
    def forward(ctx, count, *tensors):
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(
            "fused_rnn: gradients of gradients are not supported; use torch.nn's layer where a loss needs them"
        )


def _gradients(ctx, x, y, h0, c0, dy, dhn, dcn):
    call, needs = ctx.call, ctx.needs_input_grad
    taken, ctx.reserve = ctx.reserve, None
    if taken is None:
        # A backward pass uses its reserve up. A second one, over the same graph, runs forward again: the same seed, the same bits.
        taken = call.new_reserve(x)
        call.forward(x, h0, c0, torch.empty_like(y), None, None, taken[0])
    dy, dhn, dcn = (None if gradient is None else gradient.contiguous() for gradient in (dy, dhn, dcn))
    dx = torch.empty_like(x) if needs[1] else None
    dh0 = torch.empty_like(h0) if needs[2] else None
    dc0 = torch.empty_like(c0) if needs[3] else None
    dweights = torch.empty_like(call.flat) if True in needs[4:] else None
    workspace = call.workspace(x)
    call.shape.plan.backward(
        held(call.flat),
        held(x),
        held(y),
        held(h0),
        held(c0),
        span(call.lengths),
        span(call.resets),
        held(dy),
        held(dhn),
        held(dcn),
        span(dx),
        span(dh0),
        span(dc0),
        span(dweights),
        taken[0],
        span(workspace),
        call.stream,
    )
    if dweights is None:
        return (None, dx, dh0, dc0, *([None] * (len(needs) - 4)))
    parts = split(dweights, call.entries)
    if False in needs[4:]:
        parts = [part if needed else None for part, needed in zip(parts, needs[4:])]
    return (None, dx, dh0, dc0, *parts)


def split(flat, entries):
    """The tensors in one buffer, as views."""
    return [flat.as_strided(size, stride, offset) for size, stride, offset in entries]
