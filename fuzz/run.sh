#!/usr/bin/env bash
# Fuzzes a target for so many seconds on stable Rust; needs a C++ compiler.
#
#   fuzz/run.sh csv 600            # what is found is put into fuzz/found/csv, what breaks something into fuzz/broken/csv
#   fuzz/run.sh csv merge          # the smallest part of fuzz/corpus/csv and fuzz/found/csv that reaches the same, into fuzz/corpus/csv
#   fuzz/run.sh csv FILE           # one input
#   fuzz/run.sh build              # builds it, and no more
#
# FUZZ_SANITIZER=address looks for mistakes in memory besides, by options of the compiler that are not stable; it is slower.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:?a target, see src/targets/mod.rs} what=${2:-60}
triple=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
folder=${CARGO_TARGET_DIR:-$PWD/target}
if [ -n "${FUZZ_SANITIZER:-}" ]; then
    export RUSTC_BOOTSTRAP=1
    flags+=" -Zsanitizer=$FUZZ_SANITIZER"
    folder+=/$FUZZ_SANITIZER
fi
# With a target named, the flags are not those of build scripts.
program=$folder/$triple/release/fused-rnn-fuzz
if [ -z "${FUZZ_BUILT:-}" ]; then
    RUSTFLAGS=$flags CARGO_TARGET_DIR=$folder cargo build --locked --release --target "$triple"
fi
[ "$target" != build ] || exit 0

# Scratch files in memory, where there is such a folder.
[ -n "${TMPDIR:-}" ] || [ ! -w /dev/shm ] || export TMPDIR=/dev/shm
export FUZZ_TARGET=$target ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=0 RUST_BACKTRACE=1
mkdir -p "found/$target" "broken/$target" "corpus/$target"
limits=(-rss_limit_mb=3000 -timeout=20 -report_slow_units=5 "-artifact_prefix=broken/$target/")
if [ -f "$what" ]; then
    exec "$program" "${limits[@]}" "$what"
fi
if [ "$what" = merge ]; then
    # As few as reach every edge; of those at most 60 and 40 kB, from the smallest to larger ones, since each run of the tests has them. Inputs
    # that have once broken something stay, and those that are sound.
    least=found/$target.least
    rm -rf "$least"
    mkdir "$least"
    "$program" "${limits[@]}" -set_cover_merge=1 -use_counters=0 "$least" "corpus/$target" "found/$target"
    find "corpus/$target" -type f ! -name 'broke_*' ! -name 'sound_*' -delete
    sum=0
    step=$(($(find "$least" -type f | wc -l) / 60 + 1))
    for file in $(ls -Sr "$least" | awk -v step="$step" 'NR % step == 0'); do
        sum=$((sum + $(stat -c %s "$least/$file")))
        [ "$sum" -gt 40000 ] || mv "$least/$file" "corpus/$target/"
    done
    rm -rf "$least"
    exit
fi
# After an input that breaks something it is started again, until the time is over. How many inputs it tried, and in how many seconds of
# this processor, is in found/TARGET.log.
end=$((SECONDS + what))
while [ "$SECONDS" -lt "$end" ]; do
    first=()
    [ ! -d "first/$target" ] || first=("first/$target")
    "$program" "${limits[@]}" "-max_total_time=$((end - SECONDS))" -print_final_stats=1 "found/$target" "corpus/$target" "${first[@]}" \
        >> "found/$target.log" 2>&1 || echo "broken: see found/$target.log and broken/$target"
done
# Its user and system time. Not through a pipe, whose end is a process of its own that has used none.
times > "found/$target.times"
echo "processor: $(tail -n 1 "found/$target.times")" >> "found/$target.log"
