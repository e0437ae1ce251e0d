"""The program beside its peers, as a table of Markdown.

    python table.py PROGRAM OUT    # OUT has the series of data.py and the peers.json of peers.py
"""

import concurrent.futures
import datetime
import json
import math
import pathlib
import subprocess
import sys
import time

import numpy as np

from data import SERIES
from peers import ORIGINS, values_of


# Why the program is behind on a series, said where it is.
WHY = {
    "inflation": "107 values. In the forecasts from July 1996 to April 1997 the season before comes again (RMSE 0.0014 to 0.0026), which nothing"
    " says that also learns from twenty years of other ones; in the six others the program is about as good as the seasonal naive forecast, or"
    " better. ETS and ridge are behind that by 38 % and more.",
    "realgdp": "the recession of 2008. Of the eight forecasts that begin before the autumn of 2007 the program's is better than that of ETS for"
    " five; in the two after it both fail, and the one with the shorter memory less.",
    "seatbelts": "the law of February 1983 lowered the values at once. Forecasts from before know nothing of it, with all methods; of those after it"
    " ETS forgets sooner what was before.",
    "sunspots_monthly": "all ten origins lie within one cycle of eleven years. Over the last fifth of the series, which `fused-rnn train` measures,"
    " the program and ridge differ by less.",
}


def errors(truth, forecasts, scale):
    """RMSE and MASE over the whole horizon of all origins."""
    difference = np.array(forecasts) - np.array(truth)
    return float(np.sqrt((difference**2).mean())), float(np.abs(difference).mean() / scale)


def program_errors(program, path, season, step):
    """RMSE and MASE that `backtest` prints of its model over the whole horizon, what it says of its intervals, and its seconds."""
    started = time.monotonic()
    command = [program, "backtest", path, "--horizon", str(season), "--origins", str(ORIGINS), "--step", str(step), "--quiet"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    whole = text[text.index(f", {season} steps ahead") :].splitlines()
    row = next(line for line in whole if line.startswith("LSTM(50)")).split()
    held = next((line for line in whole if line.startswith("Intervals")), "")
    percent = [float(word) for word, unit in zip(held.split(), held.replace(",", "").split()[1:]) if unit == "%"][1::2]
    return float(row[1]), percent, time.monotonic() - started


def main(program, out):
    out = pathlib.Path(out)
    peers = json.loads((out / "peers.json").read_text())
    steps = {name: peers[name]["origins"][1] - peers[name]["origins"][0] for name in SERIES}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = {
            name: pool.submit(program_errors, program, out / f"{name}.csv", season, steps[name])
            for name, (season, _, _) in sorted(SERIES.items(), key=lambda item: -peers[item[0]]["values"])
        }
    print("# Forecasts beside seasonal naive, ETS and ridge on lags\n")
    print(
        f"RMSE over a horizon of one season, from {ORIGINS} rolling origins, the same for all; nothing after an origin is seen, and all are fitted"
        " anew at each. In brackets, of seasonal naive. The program with its defaults, as `fused-rnn backtest FILE --horizon SEASON`; ETS is the"
        " best of three models of statsmodels by AIC, ridge scikit-learn's `RidgeCV` (`benches/forecasts/peers.py`). Held: the parts of what came"
        f" within the program's intervals of 80 % and 95 %. {datetime.date.today()}, `benches/forecasts/run.sh`.\n"
    )
    print("| series | from | values | season | seasonal naive | ETS | ridge | fused-rnn | held | seconds |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    behind, wins, ratios, lost = [], {"ETS": 0, "ridge": 0}, {"ETS": [], "ridge": [], "fused-rnn": []}, {"ETS": [], "ridge": []}
    for name, (season, often, package) in SERIES.items():
        of = peers[name]
        values = values_of(out / f"{name}.csv")
        truth = [values[origin : origin + season] for origin in of["origins"]]
        scale = float(np.abs(values[season : of["origins"][0]] - values[: of["origins"][0] - season]).mean())
        rmse = {peer: errors(truth, of[peer], scale)[0] for peer in ("seasonal naive", "ETS", "ridge")}
        rmse["fused-rnn"], held, seconds = jobs[name].result()
        naive = rmse["seasonal naive"]
        for peer in wins:
            wins[peer] += rmse["fused-rnn"] < rmse[peer]
            if rmse["fused-rnn"] >= rmse[peer]:
                lost[peer].append(f"{name} ({rmse['fused-rnn'] / rmse[peer]:.2f})")
        for peer in ratios:
            ratios[peer].append(rmse[peer] / naive)
        if rmse["fused-rnn"] > 1.05 * naive:
            behind.append(f"{name} ({rmse['fused-rnn'] / naive:.2f})")
        best = min(rmse.values())
        cell = lambda peer: f"{'**' if rmse[peer] == best else ''}{rmse[peer]:.4g}{'**' if rmse[peer] == best else ''} ({rmse[peer] / naive:.2f})"
        parts = ", ".join(f"{part:.0f}" for part in held)
        print(
            f"| {name} | {package}, {often} | {len(values)} | {season} | {naive:.4g} | {cell('ETS')} | {cell('ridge')} | {cell('fused-rnn')} | {parts} |"
            f" {seconds:.0f} |"
        )
    mean = lambda of: math.exp(sum(map(math.log, of)) / len(of))
    print(
        f"\nOver seasonal naive, geometric means: ETS {mean(ratios['ETS']):.3f}, ridge {mean(ratios['ridge']):.3f}, fused-rnn {mean(ratios['fused-rnn']):.3f}."
        f" Ahead of ETS on {wins['ETS']} of {len(SERIES)}, of ridge on {wins['ridge']}.\n"
        f"Behind seasonal naive by more than 5 %: {', '.join(behind) or 'no series'}. Behind ETS: {', '.join(lost['ETS']) or 'no series'}."
        f" Behind ridge: {', '.join(lost['ridge']) or 'no series'}."
    )
    named = [name.split(" ")[0] for name in dict.fromkeys(behind + lost["ETS"] + lost["ridge"])]
    said = [f"- {name}: {WHY[name]}" for name in dict.fromkeys(named) if name in WHY]
    print("\nWhy:\n\n" + "\n".join(said) if said else "")


if __name__ == "__main__":
    main(*sys.argv[1:])
