#!/usr/bin/env bash
# Conversion between Kokoro's 28 English voices, measured against exact transcripts.
#   usage: bash examples/conversion/run.sh OUT
#   SPEECH       a folder that kokoro.py has already written
#   SAY          options of kokoro.py, for instance --train 9 --test 3
#   WHISPER      folder or hub name of the Whisper model whose fourth block gives the units  (openai/whisper-base)
#   RECOGNIZER   of resynth evaluate, for instance whisper:FOLDER  (whisper:base)
#   TARGETS      number of voices that each test sentence is converted to  (2)
#   METRICS, BASELINES   of resynth evaluate
# The other settings are at the top of ../recipe.sh.
WHISPER=${WHISPER:-openai/whisper-base} PITCH_OPTIONS=${PITCH_OPTIONS:---method dio --accept-unvoiced}
F0_CONFIG=${F0_CONFIG:-conversion_f0_vqvae} VOCODER_CONFIG=${VOCODER_CONFIG:-conversion_unit_source_filter}
source "$(dirname "$0")/../recipe.sh"
renamed ARCH "VOCODER_OVERRIDES=\"model._name=${ARCH:-}\""
out=${1:?usage: bash examples/conversion/run.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
data=$out/data
mkdir -p "$out"

speech=${SPEECH:-$out/speech}
if [ -z "${SPEECH:-}" ]; then
  step "1 Kokoro-82M: 90 MB to download"
  PYTHON=$(command -v python) bash "$here/fetch.sh" "$out"
  step "2 Sentences in every voice"
  # shellcheck disable=SC2086  # the options are words
  python "$here/kokoro.py" "$out/kokoro" "$speech" ${SAY:-}
fi
step "3 16 kHz, padded to whole pitch codes; every voice says the test sentences, which no other split contains"
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
bundle "$out"
bundle=$out/bundle
resynth fit-codec "$data" --split train --network 0 --out "$bundle/entropy.safetensors"
encoder=()
for index in "${!content[@]}"; do
  case ${content[index]} in --content-checkpoint | --checkpoint-path)
    encoder=(--content-checkpoint "${content[index + 1]}") ;;
  esac
done
resynth encode "$out/audio/test" --bundle "$bundle" "${encoder[@]}" --speaker-from-folder --out "$out/codes/test" --device "$DEVICE"
resynth synthesize --bundle "$bundle" --input "$data" --outdir "$out/converted" --vc --random-targets "${TARGETS:-2}" --device "$DEVICE"
step "8 Words, pitch and voice, measured"
measure=(--reference "$data" --transcripts "$speech/transcripts.tsv" --enroll "$out/audio/train" --bundle "$bundle" "${encoder[@]}"
  --metrics "${METRICS:-f0,mel,wer,speaker,dnsmos,units,rate}" --f0-method dio --recognizer "${RECOGNIZER:-whisper:base}" --language en
  --device "$DEVICE")
resynth evaluate --generated resynthesis="$out/codes" "${measure[@]}" --baselines "${BASELINES-world,opus:6}" \
  --title "Resynthesis of 28 English voices" --outdir "$out/report_resynthesis"
resynth evaluate --generated conversion="$out/converted" --pattern '{name}_{target}' "${measure[@]}" \
  --title "Conversion between 28 English voices" --outdir "$out/report_conversion"
resynth report "$out/report_resynthesis" "$out/report_conversion" --title "28 English voices" --outdir "$out/report"
