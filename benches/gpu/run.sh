#!/usr/bin/env bash
# Checks and measures on a machine with an NVIDIA GPU. Needs neither Rust nor a network: bundle.sh prepared what it runs.
#   run.sh [--out FOLDER] [--seconds N] [STAGE ...]        run.sh --help lists the stages
# Results: gpu.jsonl (one JSON object a line), gpu.md (tables) and gpu.log in FOLDER (default: $OUT, else benches/results).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v python3 >/dev/null || { echo "run.sh: python3 is needed, and not found" >&2; exit 2; }
exec python3 "$here/run.py" "$@"
