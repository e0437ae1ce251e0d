#!/usr/bin/env bash
# Measures the built-in grid beside PyTorch and ONNX Runtime. Sets up all it needs:
#   benches/peers/run.sh                        everything, written to benches/results/: about half an hour on two cores
#   benches/peers/run.sh --only 'LSTM 128×32'   arguments are those of `fused-rnn bench`; then nothing is written but what they ask for
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${PEERS_VENV:-target/peers-venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement benches/peers/requirements.txt
cargo build --release --locked
results=benches/results
files=()
[ "$#" -gt 0 ] || files=(--csv $results/cpu_grid.csv --markdown $results/cpu_grid.md --plots $results/cpu_grid)
exec "${CARGO_TARGET_DIR:-target}/release/fused-rnn" bench --grid builtin --peers torch,onnxruntime --python "$venv/bin/python" ${files[@]+"${files[@]}"} "$@"
