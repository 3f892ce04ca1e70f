#!/usr/bin/env bash
# The whole way on the embedded speech, with nothing but this repository: prepares, trains both models, resynthesizes
# and converts held-out utterances, prints measurements, and writes a page to listen to.
#   usage: bash scripts/demo.sh [OUTDIR]       OUTDIR: demo_output; the same command continues an interrupted run
# MINUTES=8 (default) is how long the vocoder trains at most; the other settings are at the top of examples/recipe.sh.
# The first step takes some 5 seconds on two cores. Where it takes over 25, the rest is shortened. FIRST_STEP=60 behaves
# as if it had taken 60 seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-demo_output}
minutes=${MINUTES:-8}
bash scripts/setup.sh
DEVICE=cpu CONTENT=${CONTENT:---feature-type logmel}
F0_CONFIG=${F0_CONFIG:-demo_f0_vqvae} VOCODER_CONFIG=${VOCODER_CONFIG:-demo_unit_source_filter}
source examples/recipe.sh
# Threads that wait sleep instead of spinning, which is many times faster where other work shares the cores.
export OMP_WAIT_POLICY=PASSIVE
data=$out/data
mkdir -p "$out"

step "0 A voice that is already trained: held-out prompts, then each of them in the four other voices"
started=$SECONDS
resynth synthesize --bundle examples/asterisk/bundle --input examples/asterisk/held_out --outdir "$out/trained"
# kept, so that the same command continues an interrupted run in the same way
[ -f "$out/first_step" ] || echo "${FIRST_STEP:-$((SECONDS - started))}" > "$out/first_step"
first_step=$(cat "$out/first_step") fewer=()
if [ "$first_step" -gt 25 ]; then
  fewer=(-n 2)
  [ "$minutes" -le 4 ] || minutes=4
  F0_OVERRIDES="optimization.max_update=150 ${F0_OVERRIDES:-}"
  echo "This machine is slow: speaking took $first_step s. Two utterances instead of all are converted, the F0 quantizer"
  echo "makes 150 updates instead of 600, the vocoder trains for up to $minutes minutes, and the codec is left out."
fi
resynth synthesize --bundle examples/asterisk/bundle --input examples/asterisk/held_out --outdir "$out/trained" --vc "${fewer[@]}"
echo "listen: $out/trained"
step "1 Manifest: 112 recordings of five voices, some of them held out"
resynth manifest examples/asterisk/speech --outdir "$data" --speaker-from parent \
  --valid-percent 5 --test-percent 8 --seed 1
step "2 Content units: log-mel and k-means"
units "$data" "$out"
step "3 F0 of every utterance, the F0 quantizer (configs/$F0_CONFIG.yaml) and its codes"
OMP_NUM_THREADS=1 pitch "$data" "$out"
step "4 Unit vocoder (configs/$VOCODER_CONFIG.yaml), up to $minutes minutes"
precision=$(python -c 'import torch; print("bfloat16" if torch.cpu._is_amx_tile_supported() else "float32")')
vocoder "$data" "$out" "++task.autocast=$precision" \
  "optimization.stop_time_hours=$(python -c "print($minutes / 60)")"
step "5 Synthesis: the held-out utterances, then each of them in the four other voices"
publish "$data" "$out"
resynth synthesize --bundle "$out/bundle" --input "$data" --outdir "$out/converted" --vc "${fewer[@]}"
if [ ${#fewer[@]} = 0 ]; then
  step "6 Codec: a context model of the streams, and the bits that it needs for the held-out ones"
  resynth fit-codec "$data" --split train --network 0 --out "$out/bundle/entropy.safetensors"
  resynth codec-bench "$data" --split test --model "$out/bundle/entropy.safetensors"
fi
step "7 Measurements on held-out utterances, and the page"
python examples/asterisk/demo_report.py "$data" "$out/bundle" "$out/resynthesized" \
  "$out/converted" "$out" --trained "$out/trained" --log "$out/checkpoints/train.log"
printf '\nwavs:  %s, %s\nlisten: open %s\n' "$out/resynthesized" "$out/converted" "$out/index.html"
