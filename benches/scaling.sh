#!/usr/bin/env bash
# Measures how the time of a step grows with T, B, H and threads, beside PyTorch and ONNX Runtime: a table, CSV and pictures of each sweep
# in benches/results/cpu_scaling. Sets up all it needs:
#   benches/scaling.sh                    all sweeps: about ten minutes on two cores
#   benches/scaling.sh seq_len hidden     some of them
#   RUN='nice -n -5' benches/scaling.sh   each sweep started by this command
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${PEERS_VENV:-target/peers-venv}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --requirement benches/peers/requirements.txt
fi
cargo build --release --locked --no-default-features --features cli
program=${CARGO_TARGET_DIR:-target}/release/fused-rnn
results=benches/results/cpu_scaling
mkdir -p "$results"

sweep() {
  local name=$1
  shift
  ${RUN:-} "$program" bench --whole --peers torch,onnxruntime --python "$venv/bin/python" --rounds 3 --seconds 0.12 "$@" \
    --csv "$results/$name.csv" --markdown "$results/$name.md" --plots "$results/$name"
  # Of the points of a sweep these say nothing that the curves do not.
  rm -f "$results/$name"/roofline-*.svg "$results/$name"/ratio-*.svg
  [ "$name" != threads ] || rm -f "$results/$name"/us-per-step-by-{batch,hidden-size}-*.svg
}

lengths=10,30,100,300,1000,3000,10000,30000,100000
[ "$#" -gt 0 ] || set -- seq_len seq_len_training batch hidden hidden_batch threads lengths
for name in "$@"; do
  case $name in
    seq_len) sweep "$name" --cell lstm,gru --seq-len $lengths --batch 1 --input-size 64 --hidden-size 128 --pass infer ;;
    seq_len_training) sweep "$name" --cell lstm --seq-len ${lengths%,30000,*} --batch 1 --input-size 64 --hidden-size 128 --pass fwd+bwd ;;
    batch) sweep "$name" --cell lstm,gru --seq-len 64 --batch 1..256:x2 --input-size 64 --hidden-size 128 --pass infer,fwd+bwd ;;
    hidden) sweep "$name" --cell lstm,gru --seq-len 64 --batch 1 --input-size 64 --hidden-size 16..1024:x2 --pass infer ;;
    hidden_batch) sweep "$name" --cell lstm,gru --seq-len 64 --batch 32 --input-size 64 --hidden-size 16..1024:x2 --pass infer ;;
    threads) sweep "$name" --cell lstm,gru --seq-len 128 --batch 1,32 --input-size 64 --hidden-size 128,512 --threads 1,2 --pass infer,fwd+bwd ;;
    lengths)
      for size in '128 32 64 128' '256 64 256 512'; do
        read -r steps batch input hidden <<< "$size"
        # From 1 to T, a tenth of the steps, a quarter.
        few=$(printf "/$((steps / 10))%.0s" $(seq "$batch")) some=$(printf "/$((steps / 4))%.0s" $(seq "$batch"))
        ${RUN:-} "$program" bench --whole --cell lstm --seq-len "$steps" --batch "$batch" --input-size "$input" --hidden-size "$hidden" \
          --pass infer,fwd+bwd --lengths "full,random,${few#/},${some#/}" --rounds 5 --seconds 0.2 --csv "$results/lengths_$hidden.csv"
        python3 benches/lengths.py "$results/lengths_$hidden.csv" > "$results/lengths_$hidden.md"
        cat "$results/lengths_$hidden.md"
      done
      ;;
    *) echo "$name is no sweep; see the names in $0" >&2; exit 2 ;;
  esac
done
