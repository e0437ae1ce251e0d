#!/usr/bin/env bash
# Runs the examples beside the same in Keras, in one run. Sets up all it needs:
#   benches/peers/examples.sh            the table of docs/benchmarks.md, written there and to benches/results/; about an hour
#   benches/peers/examples.sh --short    few epochs, one round, printed only
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${KERAS_VENV:-target/keras-venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement benches/peers/examples-requirements.txt
cargo build --release --locked --examples
exec "$venv/bin/python" benches/peers/examples.py "$@"
