#!/usr/bin/env bash
# VCTK: 110 English voices, units, pitch codes, speakers.      usage: bash examples/vctk/run.sh OUT
#   SOURCE       a folder of the corpus that you already have, version 0.92 (wav48_silence_trimmed/*/*_mic2.flac)
#                or older (wav48/*/*.wav)
#   REFERENCES   the folder with the {train,val,test}.txt of the original
# The other settings are at the top of ../recipe.sh.
source "$(dirname "$0")/../recipe.sh"
out=${1:?usage: bash examples/vctk/run.sh OUT}
source=${SOURCE:-$out/VCTK-Corpus-0.92}
mkdir -p "$out"

step "1 VCTK 0.92: 11.7 GB to download, as much again unpacked"
if [ ! -d "$source" ]; then
  fetch https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip "$out/VCTK-Corpus-0.92.zip" \
    f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c
  python -m zipfile -e "$out/VCTK-Corpus-0.92.zip" "$source"
fi
step "2 16 kHz, trailing silence cut, padded to whole pitch codes"
if [ -d "$source/wav48_silence_trimmed" ]; then
  resynth preprocess --srcdir "$source/wav48_silence_trimmed" --outdir "$out/audio" --postfix mic2.flac --trim --pad
elif [ -d "$source/wav48" ]; then
  resynth preprocess --srcdir "$source/wav48" --outdir "$out/audio" --postfix .wav --trim --pad
else
  fail "$source has neither wav48_silence_trimmed (0.92) nor wav48 (older)"
fi
step "3 Splits: the file name up to the first _ names the speaker; 5 % and 5 % of each"
splits 5 5
resynth manifest "$out/audio" --outdir "$out/data" --speaker-from prefix "${splits[@]}"
step "4 Content units"
units "$out/data" "$out"
step "5 Pitch codes"
pitch "$out/data" "$out"
step "6 Unit vocoder"
vocoder "$out/data" "$out"
step "7 Bundle, the test set resynthesized and converted to five other voices"
publish "$out/data" "$out"
resynth synthesize --bundle "$out/bundle" --input "$out/data" --outdir "$out/converted" --vc --random-targets 5 --device "$DEVICE"
