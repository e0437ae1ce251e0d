"""Backends and plans, made once and kept: one backend a number of threads and process, plans by shape."""

import os
import weakref

from . import _native

_backends = {}
_caches = weakref.WeakSet()
_leaked = []


def backend(device, number):
    """The CPU with `number` threads, or GPU `number`: one for the whole process."""
    key = (device, number)
    found = _backends.get(key)
    if found is None:
        make = _native.Backend.cpu if device == "cpu" else _native.Backend.cuda
        found = _backends[key] = make(number)
    return found


class Shape:
    """A plan, with its shapes as Python has them."""

    __slots__ = ("plan", "y", "h", "c", "workspace", "reserve")

    def __init__(self, plan):
        self.plan = plan
        self.y, self.h, self.c = tuple(plan.y_shape), tuple(plan.h_shape), tuple(plan.c_shape)
        self.workspace, self.reserve = plan.workspace_len, plan.reserve_len


class Plans(dict):
    """The plans of one operator, by sizes. Few: sequences of ever new lengths do not pile them up."""

    MOST = 64

    def __init__(self):
        super().__init__()
        _caches.add(self)

    __hash__ = object.__hash__

    def make(self, key, operator, device, number, dtype, seq_len, batch, training, stream=0):
        """A new plan, kept under `key`."""
        place = backend(device, number)
        plan = _native.Plan(place, operator, dtype, seq_len, batch, training, device == "cpu", stream)
        if len(self) >= self.MOST:
            self.clear()
        found = self[key] = Shape(plan)
        return found


def _after_fork():
    # The parent's threads do not exist here: its backends can neither be used nor ended.
    _leaked.append(dict(_backends))
    _backends.clear()
    for cache in list(_caches):
        _leaked.append(dict(cache))
        cache.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
