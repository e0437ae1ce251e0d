"""What variable lengths cost: from a CSV of `fused-rnn bench` with lengths full and others, a table of the share of valid steps and of
the time, as a part of that of full lengths.

    python3 benches/lengths.py FILE.csv
"""

import csv
import sys

with open(sys.argv[1]) as file:
    rows = [row for row in csv.DictReader(file) if row["us_per_step"]]


def place(row):
    return tuple(row[name] for name in ("cell", "seq_len", "batch", "input_size", "hidden_size", "threads", "pass"))


def operations(row):
    # Of valid steps alone.
    return float(row["gflops"]) * float(row["us_per_step"])


full = {place(row): row for row in rows if row["lengths"] == "full"}
print("| operator | pass | lengths | valid steps | time | more |\n|---|---|---|--:|--:|--:|")
for row in rows:
    if row["lengths"] == "full":
        continue
    whole = full[place(row)]
    share = operations(row) / operations(whole)
    time = float(row["us_per_step"]) / float(whole["us_per_step"])
    name = f"{row['cell'].upper()} {row['seq_len']}×{row['batch']}, {row['input_size']}→{row['hidden_size']}"
    kind = "random" if row["lengths"] == "random" else "given"
    print(f"| {name} | {row['pass']} | {kind} | {100 * share:.1f} % | {100 * time:.1f} % | {100 * (time - share):+.1f} % |")
