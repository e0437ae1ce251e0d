#!/usr/bin/env bash
# Prepares what run.sh needs on a machine with a GPU but without Rust: programs, scripts and cases, in one folder.
#   benches/gpu/bundle.sh [FOLDER]      default: .device-bundle, which git ignores; replaced if it is there
# Compile what the machine needs alone, for a small bundle: FUSED_RNN_CUDA_ARCHS=sm_90a benches/gpu/bundle.sh
# On the machine: bash FOLDER/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=${1:-.device-bundle}
most_mib=60
export FUSED_RNN_REQUIRE_NVRTC=1 # kernels compiled at first use would need NVRTC there

# The test programs that cargo names, and the CLI; `emulated` for the primitives' host version.
features="--features emulated,cublaslt"
built=$(cargo test --release --locked $features --no-run --test cuda --test operator --test model --message-format json-render-diagnostics)
cargo build --release --locked $features --bin fused-rnn

case $bundle in / | . | "") echo "bundle.sh: $bundle is no folder for a bundle" >&2; exit 2 ;; esac
rm -rf -- "$bundle"
mkdir -p "$bundle/bin" "$bundle/parity"
for test in cuda operator model; do
    program=$(python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1] and "test" in message["target"]["kind"]:
        print(message["executable"])
' "$test" <<<"$built")
    [ -n "$program" ] || { echo "bundle.sh: cargo built no test named $test" >&2; exit 1; }
    cp "$program" "$bundle/bin/test-$test"
done
cp target/release/fused-rnn "$bundle/bin/"
strip "$bundle"/bin/*
gzip -9 "$bundle"/bin/* # half the size; run.py unpacks what it runs
cp tests/fixtures/parity/*.safetensors "$bundle/parity/"
cp examples/data/sunspots_yearly.csv "$bundle/"
cp benches/gpu/{run.sh,run.py,grid.py,report.py,latencies.cu} "$bundle/"
if command -v nvcc >/dev/null; then
    nvcc -O3 -std=c++17 -gencode arch=compute_90a,code=sm_90a benches/gpu/latencies.cu -o "$bundle/bin/latencies"
else
    echo "no nvcc here: run.sh compiles latencies.cu there, if there is one"
fi
git describe --always --dirty > "$bundle/commit" 2>/dev/null || echo unknown > "$bundle/commit"
mib=$(du -sm "$bundle" | cut -f1)
ls -l "$bundle/bin"
echo "$bundle: $mib MiB"
[ "$mib" -le "$most_mib" ] || { echo "bundle.sh: more than $most_mib MiB; set FUSED_RNN_CUDA_ARCHS to the machine's" >&2; exit 1; }
