"""The examples beside the same in Keras, interleaved, in one run on the same cores. Run it through `examples.sh`.

Each round runs ours, then Keras's, each in a process of its own, with the round's number as the seed. Seconds are those of a model's
whole training, as each side measures them: Keras's include the tracing of its graph, as a user's do. An example is not repeated once
Keras has taken `--budget` seconds for it.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERAS = pathlib.Path(__file__).with_name("keras_examples.py")
EXAMPLES = ("sine_forecast", "stacked_dropout", "stacked_random", "two_features", "five_outputs", "even_numbers", "univariate",
            "ten_numbers", "japanese_vowels", "padding_masking", "attention", "transformer_encoder", "char_lm", "anomaly", "seq2seq")
CORES = 2


def records(command, prefix):
    """The results that a program prints: one JSON object on each line that begins with `prefix`."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    lines = [line.removeprefix(prefix) for line in done.stdout.splitlines() if line.startswith(prefix)]
    return [json.loads(line) for line in lines if line.startswith("{")]


def ours(example, seed, short, folder):
    command = [folder / example, "--seed", seed] + (["--short"] if short else [])
    return records(command, "result: ")


def keras(example, seed, short):
    command = [sys.executable, KERAS, "--only", example, "--seed", seed, "--threads", CORES] + (["--short"] if short else [])
    return records(command, "")


def cpu_name():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def value_text(values):
    """One value, or the range over the seeds."""
    def text(value):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"

    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low} – {high}"


def seconds_text(seconds):
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="seeds")
    parser.add_argument("--budget", type=float, default=150, help="seconds of Keras after which an example is not repeated")
    parser.add_argument("--only", nargs="*", choices=EXAMPLES, default=EXAMPLES, metavar="EXAMPLE")
    parser.add_argument("--short", action="store_true", help="few epochs, one round, nothing written: a test that all of it runs")
    parser.add_argument("--ours", type=pathlib.Path, default=ROOT / "target" / "release" / "examples", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # Programs started from here inherit it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

    versions = subprocess.run([sys.executable, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True)
    versions = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(versions.stdout)}
    header = (
        f"{cpu_name()}, {CORES} cores, f32, {platform.system()}; Keras {versions['keras']} on TensorFlow "
        f"{versions['tensorflow-cpu']}; {datetime.date.today().isoformat()}"
    )
    print(header, flush=True)
    missing = [example for example in args.only if not (args.ours / example).is_file()]
    if missing:
        raise SystemExit(f"no program of {', '.join(missing)} in {args.ours}: `cargo build --release --examples` builds them")
    head = ["| example | model | result | ours | Keras | seeds | ours, s | Keras, s | times faster |\n",
            "|---|---|---|--:|--:|--:|--:|--:|--:|\n"]
    print("".join(head), end="", flush=True)
    rows, kept = [], []
    for example in args.only:
        taken, measured, order = 0.0, {}, []
        for seed in range(1, 2 if args.short else args.rounds + 1):
            sides = {"ours": ours(example, seed, args.short, args.ours), "keras": keras(example, seed, args.short)}
            names = {side: [(record["model"], record["metric"]) for record in found] for side, found in sides.items()}
            if sorted(names["ours"]) != sorted(names["keras"]) or not names["ours"]:
                raise SystemExit(f"{example}: ours has the results {names['ours']}, Keras's {names['keras']}; the two files must agree")
            order = names["keras"]
            for side, found in sides.items():
                for record in found:
                    measured.setdefault((record["model"], record["metric"], side), []).append(record)
                    kept.append({"who": side, "seed": seed} | record)
            taken += sum({record["model"]: record["seconds"] for record in sides["keras"]}.values())
            if taken > args.budget:
                break
        seen = set()
        for model, metric in order:
            own, peer = measured[model, metric, "ours"], measured[model, metric, "keras"]
            values = [value_text([record["value"] for record in side]) for side in (own, peer)]
            row = f"| `{example}` | {model} | {metric} | {values[0]} | {values[1]} | {len(own)} "
            if model in seen:  # Its seconds stand in the row of its first figure.
                row += "| | | |\n"
            else:
                seconds = [statistics.median(record["seconds"] for record in side) for side in (own, peer)]
                # A training shorter than the clock's last digit counts as that digit.
                factor = statistics.median(b["seconds"] / max(a["seconds"], 1e-3) for a, b in zip(own, peer))
                # Short forms of the two sides are not of one size.
                ratio = "–" if args.short else f"**{factor:,.0f}**" if factor >= 100 else f"**{factor:.3g}**"
                row += f"| {seconds_text(seconds[0])} | {seconds_text(seconds[1])} | {ratio} |\n"
            seen.add(model)
            print(row, end="", flush=True)
            rows.append(row)
    if args.short or len(args.only) < len(EXAMPLES):
        return
    table = "".join(head + rows)
    folder = ROOT / "benches" / "results"
    folder.mkdir(exist_ok=True)
    (folder / "examples.md").write_text(
        f"# The examples beside Keras\n\n{header}. Seconds of a model's whole training: the median over the seeds; results are the range "
        f"over them.\nMade by `{' '.join(['benches/peers/examples.sh', *sys.argv[1:]])}`.\n\n{table}"
    )
    lines = [json.dumps({"header": header})] + [json.dumps(record) for record in kept]
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n")
    page = ROOT / "docs" / "benchmarks.md"
    text = page.read_text()
    begin, end = "<!-- examples -->\n", "<!-- /examples -->\n"
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{begin}{header}.\n\n{table}{end}{after}")


if __name__ == "__main__":
    main()
