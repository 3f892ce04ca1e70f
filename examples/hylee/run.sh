#!/usr/bin/env bash
# HYLEE: lectures from the Hugging Face data set voidful/gen_ai_2024.      usage: bash examples/hylee/run.sh OUT
#   DATASET: another data set, or a folder of one      MINUTES: cut lectures into pieces of that length (0.25)
source "$(dirname "$0")/../recipe.sh"
K=${HYLEE_K:-$K}
out=${1:?usage: bash examples/hylee/run.sh OUT}
mkdir -p "$out"

step "1 Lectures, first channel, 16 kHz"
python "$(dirname "$0")/fetch.py" "${DATASET:-voidful/gen_ai_2024}" "$out/audio" --minutes "${MINUTES:-0.25}"
step "2 Splits: one speaker"
resynth manifest "$out/audio" --outdir "$out/data" --speaker-from single --valid-percent 5 --test-percent 5
step "3 Content units: 50 a second, 320 samples each"
units "$out/data" "$out"
step "4 Pitch codes"
pitch "$out/data" "$out"
step "5 Unit vocoder: its upsampling follows from the units, 320 samples"
vocoder "$out/data" "$out"
step "6 Bundle, and the test set resynthesised"
publish "$out/data" "$out"
