#!/usr/bin/env bash
# All steps of README.md; the same command continues an interrupted run.      usage: bash examples/asterisk/run.sh OUT
#   WHISPER          folder or hub name of the Whisper model whose fourth block gives the units  (openai/whisper-base)
#   CONTENT          another content encoder; "--feature-type logmel" needs no weights
#   MINUTES          trains the vocoder in so many minutes: 8 on a GPU, 120 on a CPU; without it, VOCODER_CONFIG's updates
#   VOCODER_CONFIG   asterisk_unit_hifigan: the paper's networks  (asterisk_unit_source_filter)
#   COMPARE          with MINUTES: bundles to measure beside the new ones, NAME=FOLDER with spaces between them
#                    (published=examples/asterisk/bundle); compare.sh has more settings
#   TUXPAINT=1       also takes the seven voices of Tux Paint (161 MB, GPL-2), which have transcripts
# The other settings are at the top of ../recipe.sh.
here=$(cd "$(dirname "$0")" && pwd)
WHISPER=${WHISPER:-openai/whisper-base} K=${K:-500} PITCH_OPTIONS=${PITCH_OPTIONS:---accept-unvoiced}
F0_CONFIG=${F0_CONFIG:-asterisk_f0_vqvae} VOCODER_CONFIG=${VOCODER_CONFIG:-asterisk_unit_source_filter}
source "$here/../recipe.sh"
renamed UNITS 'CONTENT="--feature-type logmel"'
renamed CONFIG "VOCODER_CONFIG=${CONFIG:-}"
out=${1:?usage: bash examples/asterisk/run.sh OUT}
data=$out/data
mkdir -p "$out"

step "1 Asterisk's core sounds, 16 kHz"
[ -d "$out/g722" ] || bash "$here/fetch.sh" "$out"
resynth preprocess --srcdir "$out/g722" --outdir "$out/audio" --pad --trim
if [ -n "${TUXPAINT:-}" ]; then
  [ -d "$out/tuxpaint" ] || bash "$here/tuxpaint.sh" "$out"
  resynth preprocess --srcdir "$out/tuxpaint" --outdir "$out/audio" --pad --trim
fi
step "2 Splits"
if [ ! -f "$data/test.tsv" ]; then
  resynth manifest "$out/audio" --outdir "$data" --speaker-from '^([^/]+)/'
  [ -z "${MINUTES:-}" ] || full_crops "$data" 8960
fi
step "3 Content units"
units "$data" "$out"
step "4 Pitch codes"
pitch "$data" "$out"
step "5 Unit vocoder"
if [ -n "${MINUTES:-}" ]; then
  timed_vocoder "$data" "$out" "$MINUTES"
  step "6 Bundles with a codec: the last weights, and the averaged ones"
  bundle "$out" --half
  averaged "$out" --half
  resynth fit-codec "$data" --split train --network 0 --out "$out/bundle/entropy.safetensors"
  cp "$out/bundle/entropy.safetensors" "$out/bundle_averaged/"
  step "7 Both measured beside: ${COMPARE=published=$here/bundle}"
  read -r -d '' -a others <<< "$COMPARE" || true
  WHISPER=$WHISPER DEVICE=$DEVICE bash "$here/compare.sh" "$data" "$out/comparison" "${others[@]}" \
    trained="$out/bundle" averaged="$out/bundle_averaged"
  exit
fi
vocoder "$data" "$out"
step "6 Bundle with a codec, the test set resynthesized and in every other voice"
publish "$data" "$out"
resynth fit-codec "$data" --split train --network 0 --out "$out/bundle/entropy.safetensors"
resynth synthesize --bundle "$out/bundle" --input "$data" --outdir "$out/converted" --vc --device "$DEVICE"
step "7 Reports"
resynth evaluate --generated "$out/resynthesized" --reference "$data" --baselines world,opus:9 --outdir "$out/report" \
  --device "$DEVICE"
resynth evaluate --generated "$out/converted" --pattern '{name}_{target}' --reference "$data" --outdir "$out/report_converted" \
  --device "$DEVICE"
