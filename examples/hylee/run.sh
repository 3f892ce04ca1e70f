#!/usr/bin/env bash
# HYLEE: lectures from the Hugging Face data set voidful/gen_ai_2024.      usage: bash examples/hylee/run.sh OUT
#   DATASET   another data set, or a folder that holds one  (voidful/gen_ai_2024)
#   MINUTES   length of the pieces that lectures are cut into  (0.25)
# The other settings are at the top of ../recipe.sh.
source "$(dirname "$0")/../recipe.sh"
renamed HYLEE_K "K=${HYLEE_K:-}"
out=${1:?usage: bash examples/hylee/run.sh OUT}
mkdir -p "$out"

step "1 Lectures, first channel, 16 kHz"
python "$(dirname "$0")/fetch.py" "${DATASET:-voidful/gen_ai_2024}" "$out/audio" --minutes "${MINUTES:-0.25}"
step "2 Splits: one speaker"
resynth manifest "$out/audio" --outdir "$out/data" --speaker-from single --valid-percent 5 --test-percent 5
step "3 Content units: 50 per second, 320 samples each"
units "$out/data" "$out"
step "4 Pitch codes"
pitch "$out/data" "$out"
step "5 Unit vocoder: it upsamples each unit to 320 samples"
vocoder "$out/data" "$out"
step "6 Bundle, and the test set resynthesized"
publish "$out/data" "$out"
