#!/usr/bin/env bash
# Measures the built-in grid beside PyTorch and ONNX Runtime. Sets up all it needs:
#   benches/peers/run.sh                        twice, written to benches/results/ and the README: about a quarter of an hour on two cores
#   benches/peers/run.sh --only 'LSTM 128×32'   arguments are those of `fused-rnn bench`; then nothing is written but what they ask for
#   RUN='nice -n -5' benches/peers/run.sh       each run started by this command
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${PEERS_VENV:-target/peers-venv}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --requirement benches/peers/requirements.txt
fi
cargo build --release --locked
bench=("${CARGO_TARGET_DIR:-target}/release/fused-rnn" bench --grid builtin --peers torch,onnxruntime --python "$venv/bin/python")
[ "$#" -eq 0 ] || exec ${RUN:-} "${bench[@]}" "$@"

results=benches/results
grid() {
  local name=$1 which=$2
  shift 2
  ${RUN:-} "${bench[@]}" --whole --seconds 0.15 --rounds 5 --csv "$results/$name.csv" --markdown "$results/$name.md" "$@"
  cat - "$results/$name.md" > "$results/$name.md.new" <<EOF
# The CPU backend beside its peers

$which of two runs, one after the other, $(date +%F). A ratio is the peer's time over ours, the median over rounds: above 1 ours is faster.

\`\`\`sh
fused-rnn bench --grid builtin --whole --seconds 0.15 --rounds 5 --peers torch,onnxruntime --python VENV/bin/python --csv … --markdown … --plots …
\`\`\`

EOF
  mv "$results/$name.md.new" "$results/$name.md"
}
rm -f "$results"/cpu_grid/*.svg
grid cpu_grid First --plots "$results/cpu_grid"
grid cpu_grid_second Second
python3 benches/peers/tables.py "$results"/cpu_grid{,_second}.csv
