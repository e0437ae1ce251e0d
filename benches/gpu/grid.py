"""Ours beside torch.nn (cuDNN) on one GPU, in one run: one JSON object a line.

    python3 grid.py PATH/TO/fused-rnn [--seconds N] [--part I/N] [--only TEXT] [--list]

Rules: at every point torch and ours are timed in turn, twice each, so that a slow phase of the machine hits both; both times
are the GPU's own, between events around as many calls as take a millisecond (at most 64), after warming up. A figure is
microseconds a time step, the product of x with the input weights included: the median of the samples of both turns, with the
10th and 90th percentile. Training is forward, the gradients of x and of the initial states, and those of all weights. `f32`
multiplies in f32 on both sides, `tf32` in tf32 on both. Where libcublasLt is there, ours is timed with the crate's products and then with
cuBLASLt's (`fused_cublaslt_*`); where it is not, `fused_cublaslt_error` says why. The library is that of CUBLASLT_PATH, or the one that
came with torch. The kernels that ran are named. Points stand in order of
importance, since the time may end before them; those not reached are counted in the last line. Losing points are printed like all others.
"""

import argparse
import glob
import json
import os
import queue
import subprocess
import sys
import threading
import time

TORCH_DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "tf32": "float32"}
SAMPLE_US, MOST_CALLS = 1000.0, 64


def points():
    """The grid of DESIGN.md's section on benchmarks: where each point comes from, and its sizes."""
    found = []

    def add(source, cell, seq_len, batch, input_size, hidden_size, dtypes, layers=1, bidirectional=False, inference=False):
        for dtype in dtypes.split():
            found.append(dict(
                source=source, cell=cell, seq_len=seq_len, batch=batch, input_size=input_size, hidden_size=hidden_size,
                dtype=dtype, layers=layers, bidirectional=bidirectional, inference=inference,
            ))

    add("flashrnn", "lstm", 1024, 16, 768, 768, "f16 bf16 f32 tf32")
    for cell in ("lstm", "gru"):
        for batch in (1, 16, 64):
            for hidden in (64, 128, 256, 512):
                add("small", cell, 1024, batch, 128, hidden, "bf16")
    for cell in ("gru", "lstm"):
        for batch in (16, 64):
            add("cudnn gaps", cell, 1024, batch, 512, 1024, "bf16 f16")
        add("cudnn gaps", cell, 1024, 16, 512, 512, "bf16 f16", bidirectional=True)
    for cell in ("rnn", "lstm", "gru"):
        for batch in (1, 16):
            add("long", cell, 8192, batch, 256, 256, "bf16 f32")
    for batch in (2, 64, 256):
        add("flashrnn batch", "lstm", 1024, batch, 768, 768, "bf16")
    add("haste", "lstm", 50, 64, 256, 1024, "f32 tf32")
    add("haste", "gru", 50, 64, 256, 1024, "f32 tf32")
    add("fastrnns", "lstm", 100, 64, 512, 512, "f32 f16")
    add("deepbench", "lstm", 25, 64, 1024, 1024, "f16 f32")
    add("deepbench", "gru", 187, 32, 1536, 1536, "f16 f32")
    add("deepbench", "rnn", 50, 64, 1760, 1760, "f16 f32")
    add("basecalling", "lstm", 1666, 512, 96, 96, "f16", layers=5, inference=True)
    add("basecalling", "lstm", 1666, 512, 384, 384, "f16", layers=5, inference=True)
    add("basecalling", "lstm", 1666, 256, 1024, 1024, "f16", layers=5, inference=True)
    for cell in ("lstm", "gru"):
        for batch in (1, 16):
            for hidden in (128, 384, 640):
                add("streaming", cell, 1, batch, hidden, hidden, "f32 f16", inference=True)
    for batch in (1, 16):
        add("text to speech", "lstm", 512, batch, 512, 256, "f32 f16", bidirectional=True)
    for cell in ("lstm", "gru"):
        for batch in (1, 16, 64):
            for hidden in (64, 128, 256, 512):
                add("small", cell, 1024, batch, 128, hidden, "f32 f16")
    add("cudnn small", "lstm", 3854, 16, 112, 128, "f32 f16")
    add("cudnn small", "lstm", 3047, 6, 104, 40, "f32 f16")
    for batch in (8, 32, 128):
        add("flashrnn batch", "lstm", 1024, batch, 768, 768, "f16 bf16")
    for seq_len in (256, 512, 2048):
        add("flashrnn length", "lstm", seq_len, 16, 768, 768, "bf16")
    for cell in ("lstm", "gru"):
        for batch, input_size, hidden in ((1, 64, 128), (16, 128, 512), (128, 512, 2048)):
            add("haste", cell, 50, batch, input_size, hidden, "f32 tf32")
    add("cudnn layers", "lstm", 1024, 16, 512, 512, "bf16 f16", layers=4)
    return found


def environment():
    """This process's, with where torch's libcublasLt is, unless something else is asked for."""
    found = [path for folder in sys.path for path in glob.glob(os.path.join(folder, "nvidia", "*", "lib", "libcublasLt.so.*"))]
    return {**({"CUBLASLT_PATH": found[0]} if found else {}), **os.environ}


class Ours:
    """One process of ours, which keeps the GPU open from point to point."""

    def __init__(self, program, seconds):
        self.seconds = seconds
        self.process = subprocess.Popen(
            [program, "bench", "--backend", "cuda", "--pass", "infer", "--whole", "--lines", "--json", "--rounds", "1", "--seconds", "0.01"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment(),
        )
        self.answers = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.answer(60)  # the first, which warms up
        self.no_cublaslt = ""  # why there is none
        try:
            self.time(dict(
                cell="rnn", seq_len=64, batch=1, input_size=64, hidden_size=64, layers=1, dtype="bf16", bidirectional=False,
                inference=True,
            ), "forward", 0.01, "cublaslt")
        except RuntimeError as reason:
            self.no_cublaslt = str(reason)[:300]

    def read(self):
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def answer(self, seconds):
        try:
            line = self.answers.get(timeout=seconds)
        except queue.Empty:
            self.process.kill()
            raise RuntimeError(f"no answer within {seconds} s") from None
        if line is None:
            raise RuntimeError(f"fused-rnn ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def time(self, point, mode, mode_seconds, matmul="kernels"):
        """What one line of arguments answers: the time of `mode`, forward or train, at a point."""
        words = ["--matmul", matmul, "--backend", "cuda", "--whole", "--json", "--rounds", "1", "--seconds", str(mode_seconds), "--cell", point["cell"]]
        for name in ("seq_len", "batch", "input_size", "hidden_size", "layers"):
            words += ["--" + name.replace("_", "-"), str(point[name])]
        words += ["--dtype", point["dtype"], "--pass", {"forward": "infer", "train": "fwd+bwd"}[mode]]
        words += ["--direction", "bidirectional"] if point["bidirectional"] else []
        self.process.stdin.write(" ".join(words) + "\n")
        return self.answer(mode_seconds * 2 + 30)


class Torch:
    """The operator in torch.nn at one point."""

    def __init__(self, torch, point):
        self.torch = torch
        dtype = getattr(torch, TORCH_DTYPES[point["dtype"]])
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = point["dtype"] == "tf32"
        torch.manual_seed(0)
        kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[point["cell"]]
        self.model = kind(
            point["input_size"], point["hidden_size"], num_layers=point["layers"], bidirectional=point["bidirectional"]
        ).cuda().to(dtype)
        self.model.flatten_parameters()
        sizes = (point["seq_len"], point["batch"], point["input_size"])
        self.x = torch.randn(sizes, device="cuda", dtype=dtype, requires_grad=not point["inference"])
        self.dy = None if point["inference"] else torch.randn_like(self.model(self.x)[0])

    def forward(self):
        with self.torch.inference_mode():
            self.model(self.x)

    def train(self):
        self.x.grad = None
        self.model.zero_grad(set_to_none=True)
        self.model(self.x)[0].backward(self.dy)

    def time(self, call, seconds):
        """Microseconds of calls, in samples of about a millisecond."""
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))

        def sample(calls):
            begin.record()
            for _ in range(calls):
                call()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) * 1000 / calls

        sample(2)
        calls = round(min(MOST_CALLS, max(1.0, SAMPLE_US / max(sample(1), 1.0))))
        samples, start = [], time.monotonic()
        while len(samples) < 3 or time.monotonic() - start < seconds:
            samples.append(sample(calls))
        return sorted(samples)

    def kernels(self, call):
        """The GPU kernels that take the most time, so that it shows which algorithm cuDNN chose."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            call()
            self.torch.cuda.synchronize()
        spent = lambda event: getattr(event, "device_time_total", 0) or getattr(event, "cuda_time_total", 0)
        events = sorted(profiled.key_averages(), key=lambda event: -spent(event))
        return [[event.key[:80], event.count] for event in events[:3]]


def quantile(ordered, part):
    return ordered[round((len(ordered) - 1) * part)]


def measure(torch, ours, point, seconds):
    steps = point["seq_len"]
    result = dict(point)
    modes = ["forward"] if point["inference"] else ["forward", "train"]
    peer = Torch(torch, point)
    samples, turns, error = {mode: [] for mode in modes}, {name: {mode: [] for mode in modes} for name in ("fused", "fused_cublaslt")}, None
    no_cublaslt = ours.no_cublaslt
    for _ in range(2):
        for mode in modes:
            samples[mode] += peer.time(getattr(peer, mode), seconds)
        torch.cuda.synchronize()
        if error is None:
            try:
                for mode in modes:
                    turns["fused"][mode].append(ours.time(point, mode, seconds))
            except RuntimeError as reason:
                error = str(reason)
        if error is None and not no_cublaslt:
            try:
                for mode in modes:
                    turns["fused_cublaslt"][mode].append(ours.time(point, mode, seconds, "cublaslt"))
            except RuntimeError as reason:
                no_cublaslt = str(reason)
    if no_cublaslt:
        result["fused_cublaslt_error"] = no_cublaslt[:300]
    result["torch_kernels"] = peer.kernels(getattr(peer, modes[-1]))
    for mode in modes:
        ordered = sorted(samples[mode])
        result[f"torch_{mode}"] = {
            name: round(quantile(ordered, part) / steps, 4) for name, part in (("median", 0.5), ("p10", 0.1), ("p90", 0.9))
        }
        for name, own in turns.items():
            if own[mode] and error is None and not (name == "fused_cublaslt" and no_cublaslt):
                found = own[mode]
                result[f"{name}_{mode}"] = dict(
                    median=round(sum(turn["us_per_step"] for turn in found) / len(found), 4),
                    p10=round(min(turn["us_per_step_p10"] for turn in found), 4),
                    p90=round(max(turn["us_per_step_p90"] for turn in found), 4),
                )
    if error is not None:
        result["fused_error"] = error[:300]
    elif turns["fused"][modes[-1]]:
        last = turns["fused"][modes[-1]][0]
        result["fused_kernels"] = last["plan"].removesuffix(" kernels")
        result["fused_bytes"] = dict(workspace=last["workspace_bytes"], reserve=last["reserve_bytes"])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="fused-rnn")
    parser.add_argument("--seconds", type=float, default=480, help="for all points [%(default)s]")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="only every N-th point, from the I-th, 1 the first")
    parser.add_argument("--only", default="", metavar="TEXT", help="only points whose JSON has this in it")
    parser.add_argument("--list", action="store_true", help="print the points and end")
    arguments = parser.parse_args()
    index, count = (int(number) for number in arguments.part.split("/"))
    if not 1 <= index <= count:
        parser.error("--part wants I/N with 1 <= I <= N")
    chosen = [point for point in points()[index - 1::count] if arguments.only in json.dumps(point)]
    if arguments.list:
        for point in chosen:
            print(json.dumps(point))
        return
    end = time.monotonic() + arguments.seconds
    import torch

    print(json.dumps(dict(
        torch=torch.__version__, cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(),
        gpu=torch.cuda.get_device_name(0), points=len(chosen), part=arguments.part,
    )), flush=True)
    ours, reached = None, 0
    # Two programs, one of them with two kinds of products, two modes, two turns, and as much again for warming up and copies.
    each = min(0.25, max(0.03, arguments.seconds / max(1, len(chosen)) / 24))
    for point in chosen:
        if time.monotonic() > end - 5:
            break
        try:
            if ours is None or ours.process.poll() is not None:
                ours = Ours(arguments.program, each)
            result = measure(torch, ours, point, each)
        except Exception as error:
            result = dict(point, error=f"{type(error).__name__}: {error}"[:300])
            torch.cuda.empty_cache()
        print(json.dumps(result), flush=True)
        reached += 1
    if ours is not None and ours.process.poll() is None:
        ours.process.stdin.close()
        ours.process.wait(timeout=10)
    print(json.dumps(dict(done=True, reached=reached, not_reached=len(chosen) - reached)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
