#!/usr/bin/env bash
# Measures bundles beside each other on the test recordings of a data directory, in one run.
#   usage: bash examples/asterisk/compare.sh DATA REPORT NAME=BUNDLE …
#   WHISPER      folder or hub name of the Whisper model of the bundles' units  (openai/whisper-base)
#   SENTENCES    OUT of examples/conversion/run.sh: also speaks its test sentences in the voice TARGET and counts the
#                words that a recognizer gets wrong
#   TARGET       the voice of the sentences  (english)
#   RECOGNIZER   of resynth evaluate, for instance whisper:FOLDER  (whisper:base)
#   DEVICE       of the synthesis  (cuda if a GPU is found)
# REPORT/summary.txt gets all figures; REPORT/{resynthesis,conversions,…}/index.html are pages to listen to.
source "$(dirname "$0")/../recipe.sh"
usage="usage: bash examples/asterisk/compare.sh DATA REPORT NAME=BUNDLE …"
data=${1:?$usage} report=${2:?$usage}
shift 2
[ $# -gt 0 ] || fail "$usage"
[ -f "$data/test.tsv" ] || fail "$data/test.tsv does not exist: DATA is a data directory with a test split"
mkdir -p "$report"
: > "$report/summary.txt"

# measure NAME ARGUMENT …: one evaluation; utterances that could not be measured are listed, not fatal.
measure() {
  local name=$1
  shift
  printf '\n== %s\n' "$name" | tee -a "$report/summary.txt"
  resynth evaluate "$@" --device "$DEVICE" --title "$name" --outdir "$report/$name" --audio link | tee -a "$report/summary.txt" ||
    echo "(some figures are missing)" | tee -a "$report/summary.txt"
}

# encoder_of BUNDLE: sets `encoder`, the options for the content encoder of a bundle.
encoder_of() {
  encoder=()
  if grep -q '"hf"' "$1/config.json"; then encoder=(--content-checkpoint "${WHISPER:-openai/whisper-base}"); fi
}

resynthesized=() converted=() spoken=()
for pair; do
  name=${pair%%=*} bundle=${pair#*=}
  [ -f "$bundle/config.json" ] || fail "$pair: expected NAME=BUNDLE, and $bundle has no config.json"
  encoder_of "$bundle"
  step "$name: its units and pitch codes, the test set resynthesized and in every other voice"
  own=$report/$name.data
  mkdir -p "$own/f0"
  cp "$data"/test.{tsv,speaker} "$data/speakers.json" "$own/"
  cp "$data"/f0/test.* "$own/f0/"
  resynth quantize "$own" --kmeans "$bundle/kmeans.safetensors" "${encoder[@]}" --split test --device "$DEVICE"
  resynth quantize-f0 "$own" --bundle "$bundle" --split test
  if grep -q '"speaker_dim": [1-9]' "$bundle/config.json"; then
    resynth speakers "$own" --split test --accept-mean --device "$DEVICE"
  fi
  resynth synthesize --bundle "$bundle" --input "$own" --outdir "$report/$name.resynthesized" --device "$DEVICE"
  resynth synthesize --bundle "$bundle" --input "$own" --outdir "$report/$name.converted" --vc --device "$DEVICE"
  resynthesized+=("$name=$report/$name.resynthesized") converted+=("$name=$report/$name.converted")
  if [ -n "${SENTENCES:-}" ]; then
    resynth convert "$SENTENCES/audio/test" --bundle "$bundle" "${encoder[@]}" --target "${TARGET:-english}" \
      --outdir "$report/$name.sentences/test" --device "$DEVICE"
    spoken+=("$name=$report/$name.sentences")
  fi
done
step "Measured"
measure resynthesis --generated "${resynthesized[@]}" --reference "$data" --metrics f0,mel,mcd,speaker,dnsmos,level
measure conversions --generated "${converted[@]}" --pattern '{name}_{target}' --reference "$data" --metrics f0,speaker
if [ -n "${SENTENCES:-}" ]; then
  measure sentences --generated "${spoken[@]}" --reference "$SENTENCES/data" --metrics wer,dnsmos \
    --transcripts "$SENTENCES/speech/transcripts.tsv" --recognizer "${RECOGNIZER:-whisper:base}" --language en
fi
for pair; do
  name=${pair%%=*} bundle=${pair#*=}
  encoder_of "$bundle"
  measure "units_$name" --bundle "$bundle" "${encoder[@]}" --reference "$data" --metrics units,rate
done
echo "figures: $report/summary.txt"
