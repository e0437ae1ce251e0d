"""Writes the README's speed table from results of `fused-rnn bench --grid builtin --peers torch,onnxruntime --csv …`.

    python3 benches/peers/tables.py benches/results/cpu_grid.csv [ANOTHER_RUN.csv …]

The table is the first run's. Below it are, of every run, the geometric means over the faster peer of each point and the points where that one is faster.
"""

import csv
import datetime
import math
import pathlib
import sys

README = pathlib.Path(__file__).parents[2] / "README.md"
PEERS = ("torch", "onnxruntime")
PASSES = {"infer": "forward", "stream": "step by step", "fwd+bwd": "forward and backward"}


def number(text):
    value = float(text)
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def ratio(row, peer):
    text = row.get(f"{peer}_ratio") or ""
    return float(text) if text else None


def times(row, peer):
    """The peer's time and ratio as two cells of a table."""
    value = ratio(row, peer) if row else None
    if value is None:
        return "– | –"
    shown = number(value)
    return f"{number(row[f'{peer}_us_per_step'])} | " + (f"**{shown}**" if value >= 0.995 else shown)


def name(row):
    text = f"{row['cell'].upper()} {row['seq_len']}×{row['batch']}, {row['input_size']}→{row['hidden_size']}"
    if row["direction"] != "forward":
        text += f", {row['direction']}"
    if row["layers"] != "1":
        text += f", {row['layers']} layers"
    if row["lengths"] != "full":
        text += ", lengths"
    return text


def table(rows):
    points = {}
    for row in rows:
        kind = "fwd+bwd" if row["pass"] == "fwd+bwd" else row["pass"]
        points.setdefault((name(row), row["pass"] == "stream"), {})[kind] = row
    yield "| cell T×B, I→H | ours, forward | PyTorch | times | ONNX Runtime | times | ours, both | PyTorch | times |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for (point, streams), passes in points.items():
        forward, both = passes.get("stream" if streams else "infer"), passes.get("fwd+bwd")
        ours = number(both["us_per_step"]) if both else "–"
        cells = [point + (", step by step" if streams else ""), number(forward["us_per_step"])]
        yield "| " + " | ".join(cells + [times(forward, peer) for peer in PEERS] + [ours, times(both, "torch")]) + " |"


def faster(row):
    """By which factor ours is ahead of the faster peer."""
    ratios = [value for value in (ratio(row, peer) for peer in PEERS) if value is not None]
    return min(ratios) if ratios else None


def summary(runs):
    means = []
    for kind, words in PASSES.items():
        of_runs = []
        for rows in runs:
            logs = [math.log(faster(row)) for row in rows if row["pass"] == kind and faster(row)]
            of_runs.append(f"{math.exp(sum(logs) / len(logs)):.2f}")
        means.append(f"{words} {' and '.join(of_runs)}")
    count = {1: "one run", 2: "two runs"}.get(len(runs), f"{len(runs)} runs")
    yield f"Over the faster peer of each point, geometric means of {count}: {', '.join(means)}."
    behind = {}
    for at, rows in enumerate(runs):
        for row in rows:
            if faster(row) and faster(row) < 0.995:
                key = f"{name(row)}, {PASSES[row['pass']]}"
                behind.setdefault(key, [None] * len(runs))[at] = faster(row)
    if behind:
        points = (f"{key} ({', '.join('ahead' if v is None else f'{v:.2f}' for v in values)})" for key, values in behind.items())
        yield f"Slower than the faster peer: {'; '.join(points)}."
    else:
        yield "Slower than the faster peer: no point in any run."


def main():
    runs = [list(csv.DictReader(open(path, encoding="utf-8"))) for path in sys.argv[1:]]
    first = runs[0]
    date = datetime.date.fromtimestamp(pathlib.Path(sys.argv[1]).stat().st_mtime)
    head = f"{first[0]['machine']}; {first[0]['threads']} threads, f32; medians of {first[0]['rounds']} interleaved rounds; {date}."
    lines = [head, "", *table(first), "", *summary(runs)]
    before, rest = README.read_text(encoding="utf-8").split("<!-- speed -->\n")
    _, after = rest.split("<!-- /speed -->")
    README.write_text(before + "<!-- speed -->\n" + "\n".join(lines) + "\n<!-- /speed -->" + after, encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
