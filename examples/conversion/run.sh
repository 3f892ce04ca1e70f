#!/usr/bin/env bash
# Conversion between Kokoro's 28 English voices, measured against exact transcripts.      usage: bash examples/conversion/run.sh OUT
#   SPEECH       a folder that kokoro.py has made already
#   SAY          options of kokoro.py, --train 9 --test 3 for instance
#   WHISPER      folder of transformers, or name on the hub, whose fourth block gives the units      (openai/whisper-base)
#   RECOGNISER   of resynth evaluate, whisper:FOLDER for instance      (whisper:base)
#   ARCH         generator      (unit_source_filter_small)
#   TARGETS      voices that each test sentence is converted to      (2)
#   METRICS, BASELINES      of resynth evaluate      and the settings of recipe.sh
WHISPER=${WHISPER:-openai/whisper-base}
CONTENT=${CONTENT:---feature-type hf --checkpoint-path $WHISPER --layer 4}
K=${K:-100} UPDATES=${UPDATES:-3000} F0_UPDATES=${F0_UPDATES:-2000} PITCH_OPTIONS=${PITCH_OPTIONS:---method dio --accept-unvoiced}
F0_OPTIONS="--f0-input log_voicing --lr 1e-3 --num-workers 0 --save-interval 1000 --validate-interval 1000
  --save-interval-updates 500 --validate-interval-updates 500 --keep-interval-updates 1 ${F0_OPTIONS:-}"
VOCODER_OPTIONS="--arch ${ARCH:-unit_source_filter_small} --optimizer fused_adamw --lr 1e-3 --lr-shrink 0.99 --batch-size 8
  --num-workers 0 --mel-loss multi --discriminators mpd,mbstft --discriminator-width 0.125 --discriminator-start 20000
  --save-interval 1000 --validate-interval 1000 --save-interval-updates 100 --validate-interval-updates 500
  --keep-interval-updates 1 ${VOCODER_OPTIONS:-}"
source "$(dirname "$0")/../recipe.sh"
out=${1:?usage: bash examples/conversion/run.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
data=$out/data
mkdir -p "$out"

speech=${SPEECH:-$out/speech}
if [ -z "${SPEECH:-}" ]; then
  step "1 Kokoro-82M: 90 MB to fetch"
  PYTHON=$(command -v python) bash "$here/fetch.sh" "$out"
  step "2 Sentences in every voice"
  # shellcheck disable=SC2086
  python "$here/kokoro.py" "$out/kokoro" "$speech" ${SAY:-}
fi
step "3 16 kHz, padded to whole pitch codes; every voice says the test sentences, which are in no other split"
resynth preprocess --srcdir "$speech" --outdir "$out/audio" --pad
resynth manifest "$out/audio" --outdir "$data" --speaker-from parent --ref-train "$speech/train.txt" \
  --ref-valid "$speech/valid.txt" --ref-test "$speech/test.txt"
step "4 Content units"
units "$data" "$out"
step "5 Pitch codes"
pitch "$data" "$out"
step "6 Unit vocoder"
vocoder "$data" "$out"
step "7 Bundle with a codec; test sentences as files of a few hundred bytes, and in ${TARGETS:-2} other voices each"
bundle=$out/bundle
resynth export "$out/checkpoints/checkpoint_last.pt" --f0 "$out/f0_checkpoints/checkpoint_best.pt" \
  --kmeans "$out/km.safetensors" --outdir "$bundle"
resynth fit-codec "$data" --split train --network 0 --out "$bundle/entropy.safetensors"
encoder=()
[ "${CONTENT#*--checkpoint-path}" = "$CONTENT" ] || encoder=(--content-checkpoint "$WHISPER")
resynth encode "$out/audio/test" --bundle "$bundle" "${encoder[@]}" --speaker-from-folder --out "$out/codes/test" --device "$DEVICE"
resynth synthesize --path "$bundle" --input "$data" --outdir "$out/converted" --vc --random-speakers "${TARGETS:-2}" --device "$DEVICE"
step "8 What is left of words, pitch and voice"
measure=(--reference "$data" --transcripts "$speech/transcripts.tsv" --enrol "$out/audio/train" --bundle "$bundle" "${encoder[@]}"
  --metrics "${METRICS:-f0,mel,wer,speaker,dnsmos,units,rate}" --f0-method dio --recogniser "${RECOGNISER:-whisper:base}" --language en)
resynth evaluate --generated resynthesis="$out/codes" "${measure[@]}" --baselines "${BASELINES-world,opus:6}" \
  --title "Resynthesis of 28 English voices" --outdir "$out/report_resynthesis"
resynth evaluate --generated conversion="$out/converted" --pattern '{name}_{target}' "${measure[@]}" \
  --title "Conversion between 28 English voices" --outdir "$out/report_conversion"
resynth report "$out/report_resynthesis" "$out/report_conversion" --title "28 English voices" --outdir "$out/report"
