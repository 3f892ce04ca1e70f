#!/usr/bin/env bash
# A voice converter for voices that it has never heard: speaker vectors, trained on Asterisk's five voices and Kokoro's 28,
# judged on the voices of Tux Paint.      usage: bash examples/conversion/any_to_any.sh OUT ASTERISK
#   ASTERISK     OUT of examples/asterisk/run.sh, with g722/ and data/
#   MINUTES      of training: 8 on a GPU, 120 on a CPU  (120)
#   SPEECH       a folder that kokoro.py has already written; its sentences are a minute per voice
#   UNHEARD      a folder of voices to judge on, UNHEARD/VOICE/*  (Tux Paint's, 161 MB to download)
#   WHISPER      folder or hub name of the Whisper model whose fourth block gives the units  (openai/whisper-base)
#   RECOGNIZER   of resynth evaluate, for instance whisper:FOLDER  (whisper:base)
# The other settings are at the top of ../recipe.sh. The same command continues an interrupted run.
WHISPER=${WHISPER:-openai/whisper-base} K=${K:-500} PITCH_OPTIONS=${PITCH_OPTIONS:---accept-unvoiced}
F0_CONFIG=${F0_CONFIG:-asterisk_f0_vqvae} MINUTES=${MINUTES:-120}
source "$(dirname "$0")/../recipe.sh"
usage="usage: bash examples/conversion/any_to_any.sh OUT ASTERISK"
out=${1:?$usage} asterisk=${2:?$usage}
here=$(cd "$(dirname "$0")" && pwd)
data=$out/data speech=${SPEECH:-$out/speech} unheard=${UNHEARD:-$out/tuxpaint}
for folder in "$asterisk/g722" "$asterisk/data"; do
  [ -d "$folder" ] || fail "$folder does not exist: run bash examples/asterisk/run.sh $asterisk"
done
mkdir -p "$out"

step "1 Kokoro's 28 voices, a minute each"
if [ -z "${SPEECH:-}" ]; then
  PYTHON=$(command -v python) bash "$here/fetch.sh" "$out"
  python "$here/kokoro.py" "$out/kokoro" "$speech" --train 25
fi
step "2 Voices that the training does not hear"
if [ -z "${UNHEARD:-}" ] && [ ! -f "$unheard/transcripts.tsv" ]; then bash "$here/../asterisk/tuxpaint.sh" "$out"; fi
step "3 All of it at 16 kHz, padded to whole pitch codes; Asterisk in the splits of its own recipe"
resynth preprocess --srcdir "$speech" --outdir "$out/audio" --pad
resynth preprocess --srcdir "$asterisk/g722" --outdir "$out/audio/asterisk" --pad --trim
resynth preprocess --srcdir "$unheard" --outdir "$out/unheard" --pad --trim
for split in train valid test; do
  { sed 's/$/.flac/' "$speech/$split.txt"; sed '1d; s/\t.*//; s|^|asterisk/|' "$asterisk/data/$split.tsv"; } > "$out/$split.txt"
done
if [ ! -f "$data/test.tsv" ]; then
  resynth manifest "$out/audio" --outdir "$data" --ref-train "$out/train.txt" --ref-valid "$out/valid.txt" \
    --ref-test "$out/test.txt" --speaker-from '^(?:asterisk|train|valid|test)/([^/]+)/'
  full_crops "$data" 8960
fi
step "4 Content units, pitch codes and speaker vectors"
units "$data" "$out"
pitch "$data" "$out"
resynth speakers "$data" --accept-mean --device "$DEVICE"
step "5 Unit vocoder"
timed_vocoder "$data" "$out" "$MINUTES" ++task.speaker_input=vector
step "6 Bundle with a codec"
bundle "$out" --half
resynth fit-codec "$data" --split train --network 0 --out "$out/bundle/entropy.safetensors"
step "7 The test sentences in every voice that it has never heard, each given by five recordings"
encoder=(--content-checkpoint "$WHISPER")
[ -z "${CONTENT:-}" ] || encoder=()
for folder in "$out"/unheard/*/; do
  voice=$(basename "$folder")
  mapfile -t clips < <(find "$folder" -name '*.flac' -size +40k | sort | head -n 45)
  if [ ${#clips[@]} -lt 10 ]; then
    echo "$voice is left out: ${#clips[@]} of its recordings have a second or more, ten are needed"
    continue
  fi
  # Some clips are sounds, which `convert` refuses as references.
  until resynth convert "$out/audio/test" --bundle "$out/bundle" "${encoder[@]}" --target "$(IFS=,; echo "${clips[*]:0:5}")" \
    --outdir "$out/converted/$voice/test" --device "$DEVICE" 2> "$out/convert.log"; do
    refused=$(sed -n 's/.*error: reference \([^:]*\): .*/\1/p' "$out/convert.log")
    [ -n "$refused" ] && [ ${#clips[@]} -gt 10 ] || fail "$(tail -n 1 "$out/convert.log")"
    echo "$refused is no reference: it has no voice throughout"
    mapfile -t clips < <(printf '%s\n' "${clips[@]}" | grep -vxF "$refused")
  done
  mkdir -p "$out/enroll/$voice"
  cp -n "${clips[@]:5}" "$out/enroll/$voice/"
done
step "8 Words and voices, measured; and Asterisk's and Kokoro's own voices"
resynth evaluate --generated "any_to_any=$out/converted" --pattern '{target}/{name}' --reference "$data" \
  --enroll "$out/enroll" --transcripts "$speech/transcripts.tsv" --recognizer "${RECOGNIZER:-whisper:base}" --language en \
  --metrics f0,wer,speaker,dnsmos --title "Voices never heard" --audio link --device "$DEVICE" --outdir "$out/report_unheard" ||
  echo "(some figures are missing)"
resynth synthesize --bundle "$out/bundle" --input "$data" --outdir "$out/resynthesized" --device "$DEVICE"
resynth evaluate --generated "any_to_any=$out/resynthesized" --reference "$data" --transcripts "$speech/transcripts.tsv" \
  --recognizer "${RECOGNIZER:-whisper:base}" --language en --metrics f0,mel,mcd,wer,speaker,dnsmos --audio link --device "$DEVICE" \
  --title "Voices of the training" --outdir "$out/report_heard" || echo "(some figures are missing)"
