#!/usr/bin/env bash
# Times the CPU backend beside PyTorch and ONNX Runtime, in one run. Sets up all it needs:
#   benches/peers/run.sh            the grid of the README's table, written to benches/results/
#   benches/peers/run.sh --quick    fewer rounds, printed only
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${PEERS_VENV:-target/peers-venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement benches/peers/requirements.txt
cargo build --release --locked
exec "$venv/bin/python" benches/peers/cpu_grid.py "$@"
