#!/usr/bin/env bash
# LJSpeech: one voice, units, pitch codes.      usage: bash examples/ljspeech/run.sh OUT
#   SOURCE       a folder LJSpeech-1.1 that you already have
#   REFERENCES   the folder with the {train,val,test}.txt of the original
# The other settings are at the top of ../recipe.sh.
source "$(dirname "$0")/../recipe.sh"
out=${1:?usage: bash examples/ljspeech/run.sh OUT}
source=${SOURCE:-$out/LJSpeech-1.1}
mkdir -p "$out"

step "1 LJSpeech 1.1: 2.7 GB to download, 3.8 GB unpacked"
if [ ! -d "$source/wavs" ]; then
  fetch https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2 "$out/LJSpeech-1.1.tar.bz2" \
    be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5
  tar -xjf "$out/LJSpeech-1.1.tar.bz2" -C "$out"
fi
step "2 16 kHz, padded to whole pitch codes"
resynth preprocess --srcdir "$source/wavs" --outdir "$out/audio" --pad
step "3 Splits: the lists of the original, or 10 % and 5 % as in these"
splits 10 5
resynth manifest "$out/audio" --outdir "$out/data" --speaker-from single "${splits[@]}"
step "4 Content units"
units "$out/data" "$out"
step "5 Pitch codes"
pitch "$out/data" "$out"
step "6 Unit vocoder"
vocoder "$out/data" "$out"
step "7 Bundle, and the test set resynthesized"
publish "$out/data" "$out"
