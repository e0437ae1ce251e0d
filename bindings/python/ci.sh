#!/usr/bin/env bash
# The bindings, built and tested: the C interface, its header and example; the Python package, its wheel and tests. Sets up all it needs, in
# target/bindings; exits non-zero on the first thing that fails. Prints the seconds of each step.
#   bindings/python/ci.sh             everything
#   bindings/python/ci.sh --no-torch  without downloading torch: the tests of the drop-ins are skipped, and say so
set -euo pipefail
cd "$(dirname "$0")/../.."
torch=2.15.0
target=$PWD/target/bindings
export CARGO_TARGET_DIR=$target/cargo CARGO_TERM_COLOR=never
steps=() current="" started=0
finish_step() { [ -z "$current" ] || steps+=("$(printf '%5d s  %s' "$((SECONDS - started))" "$current")"); current=""; }
step() { finish_step; current=$*; started=$SECONDS; printf '\n== bindings: %s\n' "$*"; }
report() {
    local status=$?
    finish_step
    printf '\n== bindings: seconds of each step\n'
    printf '%s\n' "${steps[@]}"
    printf '%5d s  in all\n' "$SECONDS"
    exit "$status"
}
trap report EXIT

# PyPI has torch for x86-64 Linux with CUDA alone: 0.5 GB and 2 GB of libraries that it does not load without. uv downloads and unpacks
# them side by side, while cargo builds.
venv=$target/venv packages=(numpy==2.4.6 pytest==9.2.0 maturin==1.16.0)
[ "${1:-}" = --no-torch ] || packages+=("torch==$torch")
set_up() {
    [ -x "$venv/bin/uv" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9; }
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" "${packages[@]}"
}
mkdir -p "$target"
set_up > "$target/setup.log" 2>&1 &
setting_up=$!

step "format and lints"
cargo fmt --check --manifest-path bindings/Cargo.toml -p fused-rnn-c -p fused-rnn-header -p fused-rnn-python
cargo clippy --locked --quiet --manifest-path bindings/Cargo.toml -p fused-rnn-c -p fused-rnn-python --all-targets -- -D warnings

step "the C interface: header"
cargo test --locked --quiet --manifest-path bindings/Cargo.toml -p fused-rnn-header

step "the C interface: calls, example"
# Together with the Python package, so that the operator is compiled once: with the features that both ask of its dependencies.
cargo test --locked --release --quiet --manifest-path bindings/Cargo.toml -p fused-rnn-c -p fused-rnn-python --tests

step "the rest of the packages' set-up"
wait "$setting_up" || { cat "$target/setup.log" >&2; exit 1; }

step "pip install ."
PATH="$venv/bin:$PATH" "$venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall .
"$venv/bin/python" -c 'import fused_rnn; print("fused_rnn", fused_rnn.__version__, fused_rnn.__file__)'

step "the Python package"
# Not from this folder: what is tested is what is installed.
"$venv/bin/python" -m pytest -q -rs --show-capture=no -p no:cacheprovider bindings/python/tests
