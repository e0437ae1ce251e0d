"""The CPU backend beside PyTorch and ONNX Runtime, interleaved, on one grid. Run it through `run.sh`.

Every figure is microseconds a time step: the median over rounds of whole calls divided by seq_len. In each round every
implementation is timed in turn, so that a slow phase of the machine hits all of them. Training is forward, gradients of
x and h0, and gradients of all weights. Ours runs in its own process (`fused-rnn bench --json`).
"""

import argparse
import datetime
import io
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
OURS = ROOT / "target" / "release" / "fused-rnn"

# cell, seq_len, batch, input_size, hidden_size
GRID = [
    ("lstm", 10, 1, 1, 50),
    ("gru", 10, 1, 1, 50),
    ("rnn", 10, 1, 1, 50),
    ("lstm", 10, 32, 1, 50),
    ("lstm", 128, 1, 64, 128),
    ("gru", 128, 1, 64, 128),
    ("lstm", 128, 32, 64, 128),
    ("gru", 128, 32, 64, 128),
    ("lstm", 1024, 1, 64, 256),
    ("lstm", 256, 64, 256, 512),
    ("gru", 256, 64, 256, 512),
    ("lstm", 64, 128, 1024, 1024),
]


def timed(call, seconds):
    """Seconds a call, the median of as many calls as fit `seconds` (three at least), after a warm-up."""
    call()
    samples = []
    end = time.perf_counter() + seconds
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def torch_calls(point, threads):
    import torch

    torch.set_num_threads(threads)
    cell, seq_len, batch, input_size, hidden_size = point
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](input_size, hidden_size)
    x = torch.randn(seq_len, batch, input_size)
    dy = torch.randn(seq_len, batch, hidden_size)
    state = torch.zeros(1, batch, hidden_size)

    def forward():
        with torch.inference_mode():
            layer(x, (state, state) if cell == "lstm" else state)

    xg = x.clone().requires_grad_()
    h0 = state.clone().requires_grad_()
    c0 = state.clone().requires_grad_()
    inputs = [xg, h0] + ([c0] if cell == "lstm" else []) + list(layer.parameters())

    def train():
        y, _ = layer(xg, (h0, c0) if cell == "lstm" else h0)
        torch.autograd.grad(y, inputs, dy)

    return {"forward": forward, "train": train}


def onnxruntime_calls(point, threads):
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    cell, seq_len, batch, input_size, hidden_size = point
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    rng = np.random.default_rng(1)

    def weight(name, *shape):
        return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(hidden_size)).astype(np.float32), name)

    weights = [
        weight("W", 1, gates * hidden_size, input_size),
        weight("R", 1, gates * hidden_size, hidden_size),
        weight("B", 1, 2 * gates * hidden_size),
    ]
    attributes = {"hidden_size": hidden_size} | ({"linear_before_reset": 1} if cell == "gru" else {})
    node = helper.make_node(cell.upper(), ["X", "W", "R", "B"], ["Y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [seq_len, batch, input_size])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = rng.standard_normal((seq_len, batch, input_size)).astype(np.float32)
    return {"forward": lambda: session.run(None, {"X": x})}


def ours(point, threads, seconds):
    cell, seq_len, batch, input_size, hidden_size = point
    command = [OURS, "bench", "--cell", cell, "--seq-len", seq_len, "--batch", batch, "--input-size", input_size]
    command += ["--hidden-size", hidden_size, "--threads", threads, "--seconds", seconds, "--json"]
    line = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout
    result = json.loads(line)
    return {"forward": result["forward_us"] * 1e-6, "train": result["train_us"] * 1e-6}


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="a timing's length")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of grid points")
    parser.add_argument("--quick", action="store_true", help="two rounds, nothing written")
    args = parser.parse_args()
    rounds = 2 if args.quick else args.rounds

    import onnxruntime
    import torch

    header = (
        f"{cpu_name()}, {args.threads} threads, f32, {platform.system()}; torch {torch.__version__}, "
        f"ONNX Runtime {onnxruntime.__version__}; median of {rounds} interleaved rounds; "
        f"{datetime.date.today().isoformat()}"
    )
    print(header, flush=True)
    table, records = io.StringIO(), []
    table.write("| cell T×B, I→H | ours fwd | torch fwd | ratio | ORT fwd | ratio | ours fwd+bwd | torch fwd+bwd | ratio |\n")
    table.write("|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
    print(table.getvalue(), end="", flush=True)
    for number, point in enumerate(GRID):
        if args.only and number not in args.only:
            continue
        torch_point, ort_point = torch_calls(point, args.threads), onnxruntime_calls(point, args.threads)
        samples = {}
        for _ in range(rounds):
            mine = ours(point, args.threads, args.seconds)
            measured = {("ours", mode): mine[mode] for mode in mine}
            measured |= {("torch", mode): timed(call, args.seconds) for mode, call in torch_point.items()}
            measured |= {("ort", mode): timed(call, args.seconds) for mode, call in ort_point.items()}
            for key, value in measured.items():
                samples.setdefault(key, []).append(value * 1e6 / point[1])
        median = {key: statistics.median(values) for key, values in samples.items()}

        def ratio(peer, mode):
            """The median over rounds of ours / peer: below 1 is ahead."""
            pairs = zip(samples["ours", mode], samples[peer, mode])
            return statistics.median(a / b for a, b in pairs)

        def digits(value):
            return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"

        cell, seq_len, batch, input_size, hidden_size = point
        row = (
            f"| {cell.upper()} {seq_len}×{batch}, {input_size}→{hidden_size} "
            f"| {digits(median['ours', 'forward'])} | {digits(median['torch', 'forward'])} | **{ratio('torch', 'forward'):.2f}** "
            f"| {digits(median['ort', 'forward'])} | **{ratio('ort', 'forward'):.2f}** "
            f"| {digits(median['ours', 'train'])} | {digits(median['torch', 'train'])} | **{ratio('torch', 'train'):.2f}** |\n"
        )
        print(row, end="", flush=True)
        table.write(row)
        for (who, mode), values in samples.items():
            records.append(
                {
                    "who": who,
                    "mode": mode,
                    "cell": cell,
                    "seq_len": seq_len,
                    "batch": batch,
                    "input_size": input_size,
                    "hidden_size": hidden_size,
                    "us_per_step": values,
                }
            )
    if args.quick or args.only:
        return
    folder = ROOT / "benches" / "results"
    folder.mkdir(exist_ok=True)
    (folder / "cpu_grid.md").write_text(
        f"# The CPU backend beside its peers\n\n{header}. Microseconds a time step; ratios are ours / theirs, below 1 is ahead.\n"
        f"Made by `benches/peers/run.sh`.\n\n{table.getvalue()}"
    )
    readme = (ROOT / "README.md").read_text()
    begin, end = "<!-- speed -->\n", "<!-- /speed -->\n"
    before, rest = readme.split(begin, 1)
    after = rest.split(end, 1)[1]
    (ROOT / "README.md").write_text(f"{before}{begin}{header}.\n\n{table.getvalue()}{end}{after}")
    lines = [json.dumps({"header": header})] + [json.dumps(r) for r in records]
    (folder / "cpu_grid.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
