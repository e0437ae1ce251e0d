#!/usr/bin/env bash
# Checks the Rust doors to other engines: format, lints, tests, documentation's code, and the example of each. Prints the seconds of each step.
#
#   bindings/ci.sh                 # all
#   bindings/ci.sh candle          # one of host, candle, burn
#
# All share one folder of builds, so that the operator and common dependencies are compiled once. Lints come from the compilation of the
# tests: clippy's driver stands in for the compiler of each crate, because `cargo clippy` would compile every dependency a second time.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../target}/bindings"
export CARGO_TERM_QUIET=true

component() { cargo "$1" --version >/dev/null 2>&1 || rustup component add "${1/fmt/rustfmt}"; }
component fmt
component clippy
driver="$(rustc --print sysroot)/bin/clippy-driver"

timed() {
    local start=$SECONDS
    "${@:2}"
    printf '%5d s  %s\n' $((SECONDS - start)) "$1"
}

linted() { RUSTC_WORKSPACE_WRAPPER="$driver" CLIPPY_ARGS="-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__" "$@"; }

check() {
    cd "$1"
    timed "$1: format" cargo fmt --check
    timed "$1: lints and compilation" linted cargo test --locked --all-targets --no-run
    timed "$1: tests" linted cargo test --locked --tests
    timed "$1: code of the documentation" linted cargo test --locked --doc
    if [ -e examples/adding.rs ]; then
        timed "$1: example" linted cargo run --locked --example adding
    fi
    cd ..
}

[ $# -gt 0 ] || set -- host candle burn
for crate in "$@"; do check "$crate"; done
