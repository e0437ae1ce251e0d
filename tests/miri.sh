#!/usr/bin/env bash
# Unsafe code outside of CUDA and vector instructions under Miri (https://github.com/rust-lang/miri): threads that take parts of a job, steps of
# a time loop that several threads write, portable vectors, tensors' views, and what computes with them. Miri interprets: a test takes hundreds
# of times as long, so that these are the tests that end.
#
#   rustup toolchain install nightly --component miri,rust-src
#   tests/miri.sh                 # all
#   tests/miri.sh backend::cpu::team
#
# It runs by hand. 2026-11-30, nightly of 2026-05-19, on a busy machine: those of pool and cell, team::callers_share_a_team and
# lockstep::a_panic_ends_the_work have passed, nothing has failed; the others had not ended after four minutes, and do fewer rounds since.
set -euo pipefail
cd "$(dirname "$0")/.."
# Time, and the number of processors.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
[ $# -gt 0 ] || set -- backend::cpu::team backend::cpu::pool backend::cpu::lockstep simd:: rnn:: dtype:: cell:: error::
cargo +nightly miri test --locked --no-default-features --features operator --lib -- "$@"
