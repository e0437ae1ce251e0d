#!/usr/bin/env bash
# Unsafe code outside of CUDA and vector instructions under Miri (https://github.com/rust-lang/miri): threads that take parts of a job, steps of
# a time loop that several threads write, portable vectors, tensors' views, and what computes with them. Miri interprets: a test takes hundreds
# of times as long, so that these are the tests that end.
#
#   rustup toolchain install nightly --component miri,rust-src
#   tests/miri.sh                 # all
#   tests/miri.sh backend::cpu::team
#
# It runs by hand. 2026-11-30, nightly of 2026-05-19, test by test, at low priority on two busy cores, each for 15 minutes at most: of 21 tests 20
# have passed, nothing was found. rnn::dropout's mask_has_its_probability_and_keeps_the_mean, of safe code alone, had not ended; it has
# fewer elements here since, and passes. The longest were team::every_part_runs_once (14 minutes), parts_see_and_leave_memory (7), callers_share_a_team, pool's
# results_are_those_of_own_threads (6 each) and panics_come_to_the_caller (5).
set -euo pipefail
cd "$(dirname "$0")/.."
# Time, and the number of processors.
export MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
[ $# -gt 0 ] || set -- backend::cpu::team backend::cpu::pool backend::cpu::lockstep simd:: rnn:: dtype:: cell:: error::
cargo +nightly miri test --locked --no-default-features --features operator --lib -- "$@"
