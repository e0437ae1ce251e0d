#!/usr/bin/env bash
# Training on two processes of an MPI program: the model is that of one process with the doubled batch, to rounding. Installs MPI (MPICH) and
# libclang into target/mpi; not part of CI, since building with the feature takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/mpi/venv
if [ ! -e "$tools/done" ]; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check mpich==5.0.2 libclang==18.1.1
    touch "$tools/done"
fi
export PATH=$PWD/$tools/bin:$PATH
LIBCLANG_PATH=$(echo "$PWD/$tools"/lib/python3*/site-packages/clang/native)
# libclang from a wheel has no headers of its own.
BINDGEN_EXTRA_CLANG_ARGS="-I$(cc -print-file-name=include)"
export LIBCLANG_PATH BINDGEN_EXTRA_CLANG_ARGS LD_LIBRARY_PATH=$PWD/$tools/lib
cargo build --locked --release --no-default-features --features cli,mpi
program=target/release/fused-rnn
data=examples/data/sunspots_monthly.csv
mpirun -n 2 "$program" train "$data" --mpi --epochs 3 --batch-size 16 --out target/mpi/two --quiet
"$program" train "$data" --epochs 3 --batch-size 32 --out target/mpi/one --quiet
python3 - <<'PYTHON'
import array, json

def weights(path):
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__")
    part = lambda entry: array.array("f", data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]])
    return {name: part(entry) for name, entry in header.items() if not name.startswith("optimizer.")}

two, one = (weights(f"target/mpi/{name}/model.safetensors") for name in ("two", "one"))
assert two.keys() == one.keys() and len(one) > 3, (two.keys(), one.keys())
worst = max(abs(a - b) for name in one for a, b in zip(one[name], two[name], strict=True))
print(f"{sum(map(len, one.values()))} weights; largest difference between two processes and one: {worst:.2e}")
assert worst < 1e-4
PYTHON
# A process that cannot go on takes the others with it.
if mpirun -n 2 "$program" train "$data" --mpi --epochs 1 --learning-rate 0 --out target/mpi/bad --quiet; then
    echo "a learning rate of zero was accepted" >&2
    exit 1
fi
echo "MPI: passed"
