"""The drop-ins beside torch.nn's layers and beside the crate's call alone, in one run, in turns: `python bindings/python/bench.py`.

A time is the least over all rounds, since whatever else runs on a machine only adds; "over" is what the binding adds to the crate's call: for forward + backward one forward call and one backward
call, with torch's own work for a backward of any layer in it. The row "empty" is a torch.autograd.Function of as many tensors that computes
nothing, forward and backward: the part of "over" that is torch's.
"""

import argparse
import sys
import time
from pathlib import Path

# The package that is installed: its source beside this script has no native part.
sys.path = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

import torch

import fused_rnn.torch as fused
from fused_rnn.torch._pass import span


class Empty(torch.autograd.Function):
    """As many tensors in and out as a layer has, and nothing computed."""

    @staticmethod
    def forward(ctx, y, hn, *weights):
        ctx.gradients = [torch.empty_like(weight) for weight in weights]
        return y.view_as(y), hn.view_as(hn)

    @staticmethod
    def backward(ctx, dy, dhn):
        return (None, None, *ctx.gradients)


def microseconds(run):
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e3


def alone(layer, x, backward):
    """A function that gives microseconds of the crate's call alone."""
    layer(x)[0] if not backward else layer(x)[0].sum().backward()
    plans = layer._plans[0]
    shape = next(found for key, found in plans.items() if key[5] == backward)
    y, hn, dy = torch.empty(shape.y), torch.empty(shape.h), torch.ones(shape.y)
    cn = torch.empty(shape.c) if layer._has_c else None
    dweights = torch.empty_like(layer._flat)
    keep = (y, hn, cn, dy, dweights)

    def run():
        _ = keep
        return (
            shape.plan.nanoseconds(
                *map(span, (layer._flat, x, y, hn, cn, dy if backward else None, dweights if backward else None)), 1,
            )
            / 1e3
        )

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, microseconds, the least of all rounds")
    print(f"{'layer':5} {'T x B':8} {'I -> H':10} {'pass':18} {'torch':>9} {'fused_rnn':>9} {'crate':>9} {'over':>7} {'ratio':>6}")
    for seq_len, batch, inputs, hidden in ((128, 32, 64, 128), (10, 1, 1, 50)):
        for name in ("LSTM", "GRU"):
            theirs, ours = getattr(torch.nn, name)(inputs, hidden), getattr(fused, name)(inputs, hidden)
            ours.load_state_dict(theirs.state_dict())
            x, dy = torch.randn(seq_len, batch, inputs), torch.ones(seq_len, batch, hidden)
            hn = torch.zeros(1, batch, hidden)

            def forward(layer):
                with torch.no_grad():
                    layer(x)

            def step(layer):
                for weight in layer.parameters():
                    weight.grad = None
                layer(x)[0].backward(dy)

            def empty():
                for weight in ours.parameters():
                    weight.grad = None
                Empty.apply(dy, hn, *ours.parameters())[0].backward(dy)

            for what, run, backward in (("forward", forward, False), ("forward+backward", step, True)):
                if backward:
                    crate = alone(ours, x, True)
                else:
                    with torch.no_grad():
                        crate = alone(ours, x, False)
                runs = [lambda: microseconds(lambda: run(theirs)), lambda: microseconds(lambda: run(ours)), crate]
                if backward:
                    runs.append(lambda: microseconds(empty))
                times = [[] for _ in runs]
                end = time.perf_counter() + arguments.seconds
                while time.perf_counter() < end or len(times[0]) < 5:
                    for one, into in zip(runs, times):
                        # Some calls of each in a turn: the first finds cold caches, and cores on which the other's threads still wait awake.
                        begin = time.perf_counter()
                        while True:
                            into.append(one())
                            if time.perf_counter() - begin > 5e-2:
                                break
                torch_, ours_, crate_, *rest = (min(of) for of in times)
                row = f"{name:5} {f'{seq_len} x {batch}':8} {f'{inputs} -> {hidden}':10} {what:18}"
                row += f" {torch_:9.1f} {ours_:9.1f} {crate_:9.1f} {ours_ - crate_:7.1f} {torch_ / ours_:6.2f}"
                print(row + (f"   empty {rest[0]:.1f}" if rest else ""), flush=True)


if __name__ == "__main__":
    main()
