"""gpu.jsonl as tables: python3 report.py gpu.jsonl gpu.md"""

import json
import sys


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def text(value):
    """For a cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ")[:300]


def of(records, kind):
    return [record for record in records if record["record"] == kind]


def machine(records):
    for record in of(records, "machine")[-1:]:
        yield "".join(f"- {key}: {text(value)}\n" for key, value in record.items() if key != "record")


def stages(records):
    last = {record["stage"]: record for record in of(records, "stage")}
    rows = []
    for stage, record in last.items():
        extra = {k: v for k, v in record.items() if k not in ("record", "stage", "outcome", "why", "seconds")}
        said = "; ".join([f"{key} {value}" for key, value in extra.items()] + ([record["why"]] if record["why"] else []))
        rows.append([stage, record["outcome"], record["seconds"], text(said)])
    if rows:
        yield "## Stages\n\n" + table(["stage", "outcome", "s", ""], rows)


def sanitizer(records):
    rows = [[r["tool"], r["test"], "passed" if r["passed"] else "failed", text(r["why"])] for r in of(records, "sanitizer")]
    if rows:
        yield "## compute-sanitizer\n\n" + table(["tool", "test", "outcome", ""], rows)


def parity(records):
    rows = [[r["dtype"], r["name"], r["result"], r["worst_relative_error"]] for r in of(records, "parity") if "result" in r]
    if rows:
        yield "## Parity\n\n" + table(["element type", "case", "result", "worst relative error"], rows)


def latencies(records):
    rows, known = [], ("record", "what", "clk", "best", "worst", "ns", "best_ns", "worst_ns", "error")
    for r in of(records, "latency"):
        if "what" not in r:
            continue
        sizes = ", ".join(f"{key} {value}" for key, value in r.items() if key not in known)
        if "error" in r:
            rows.append([r["what"], sizes, text(r["error"]), "", ""])
        elif "clk" in r:
            rows.append([r["what"], sizes, f"{r['clk']:.1f}", f"{r['best']:.1f} to {r['worst']:.1f}", f"{r['ns']:.0f}"])
        else:
            rows.append([r["what"], sizes, "", f"{r['best_ns']:.0f} to {r['worst_ns']:.0f} ns", f"{r['ns']:.0f}"])
    if rows:
        yield "## Latencies and rates\n\nSM clocks, median of the runs; range; nanoseconds.\n\n" + table(
            ["what", "", "clk", "range", "ns"], rows
        )


def grid(records):
    rows = []
    for r in of(records, "grid"):
        if "cell" not in r:
            continue
        name = f"{r['cell']} {r['seq_len']}×{r['batch']}, {r['input_size']}→{r['hidden_size']}"
        name += f", {r['layers']} layers" * (r["layers"] > 1) + ", bidirectional" * r["bidirectional"]
        row = [r["source"], name, r["dtype"]]
        if "error" in r:
            rows.append(row + [text(r["error"]), "", "", "", "", "", "", "", ""])
            continue
        for mode in ("forward", "train"):
            theirs, ours, library = (r.get(f"{name}_{mode}") for name in ("torch", "fused", "fused_cublaslt"))
            row += [theirs["median"] if theirs else ""]
            row += [f"{ours['median']} ({ours['p10']} to {ours['p90']})" if ours else ""]
            row += [f"{theirs['median'] / ours['median']:.2f}" if theirs and ours else ""]
            row += [library["median"] if library else ""]
        row += [text(r.get("fused_error") or r.get("fused_kernels", ""))]
        rows.append(row)
    if rows:
        yield (
            "## Beside torch.nn\n\nMicroseconds a time step, the product with the input weights included: median (10th to 90th "
            "percentile); ×: how many times torch's time is ours.\n\n"
        ) + table(["from", "operator", "type", "torch fwd", "ours fwd", "×", "with cuBLASLt", "torch train", "ours train", "×", "with cuBLASLt", "kernels"], rows)


def main():
    with open(sys.argv[1]) as file:
        records = [json.loads(line) for line in file if line.strip()]
    parts = [part for make in (machine, stages, sanitizer, parity, latencies, grid) for part in make(records)]
    with open(sys.argv[2], "w") as file:
        file.write("# On a GPU\n\n" + "\n".join(parts))


if __name__ == "__main__":
    main()
