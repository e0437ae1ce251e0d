#!/usr/bin/env bash
# The checks that take minutes and depend on few files:
#
#   machine_code   what libnvrtc has made of the kernels for every GPU, against benches/machine_code; needs a release build with the libnvrtc of
#                  that version
#   planted_bugs   bugs planted into the kernels' sources, one after the other: the suite of properties catches each on the emulated GPU
#   sanitizers     the suite on the emulated GPU under AddressSanitizer and UndefinedBehaviorSanitizer
#
#   tests/slow.sh                              # all of them
#   tests/slow.sh --if-changed sanitizers      # only where files that decide it are not those that it last passed with
#
# What passed, with which files and when, is written to tests/slow_passed.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
passed=tests/slow_passed.txt
# The versions that the tables of benches/machine_code are of.
nvrtc_version=12.9.86 nvdisasm_version=13.5.37
if_changed=
[ "${1:-}" != --if-changed ] || { if_changed=yes; shift; }

# What decides a check.
files_of() {
    case "$1" in
        machine_code) echo kernels benches/machine_code build build.rs src/backend/cuda/images src/cell/spec.rs tests/slow.sh ;;
        planted_bugs) echo kernels tests/operator/planted_bugs tests/operator/backends ;;
        sanitizers) echo kernels src/backend/cuda src/backend/checkpoints src/cell src/rnn build build.rs tests/operator/backends ;;
        *) echo "no such check: $1" >&2; return 1 ;;
    esac
}

run() {
    case "$1" in
        machine_code)
            [ "${NVRTC_VERSION:-$nvrtc_version}" = "$nvrtc_version" ] || {
                echo "the build has libnvrtc $NVRTC_VERSION; the tables of benches/machine_code are of $nvrtc_version" >&2
                return 1
            }
            local tools=$PWD/target/machine-code-tools-$nvdisasm_version-$nvrtc_version
            if [ ! -e "$tools/done" ]; then
                rm -rf "$tools"
                python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$tools" \
                    "nvidia-cuda-nvdisasm==$nvdisasm_version" "nvidia-cuda-nvcc-cu12==$nvrtc_version"
                touch "$tools/done"
            fi
            python3 benches/machine_code/check.py --tools "$tools"
            ;;
        planted_bugs)
            cargo test --locked --features emulated,ptx,cublaslt --test operator -- --ignored --nocapture planted_bugs_are_caught
            ;;
        sanitizers)
            # Leaks are not looked for: the harness leaks on purpose.
            FUSED_RNN_HOST_SANITIZE=1 ASAN_OPTIONS=detect_leaks=0 CARGO_TARGET_DIR=target/sanitized \
                cargo test --locked --no-default-features --features model,emulated --test operator -- shuffled
            ;;
    esac
}

[ $# -gt 0 ] || set -- machine_code planted_bugs sanitizers
for check in "$@"; do
    files=$(files_of "$check")
    # shellcheck disable=SC2086
    now=$(find $files -type f -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
    line=$(grep "^$check " "$passed" 2>/dev/null || true)
    if [ -n "$if_changed" ] && [ "$(cut -d' ' -f3 <<<"$line")" = "$now" ]; then
        echo "$check: not run again: $files are as on $(cut -d' ' -f2 <<<"$line"), when it passed"
        continue
    fi
    run "$check"
    { grep -v "^$check " "$passed" 2>/dev/null || true; echo "$check $(date -u +%F) $now"; } | LC_ALL=C sort > "$passed.new"
    mv "$passed.new" "$passed"
done
