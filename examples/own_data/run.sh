#!/usr/bin/env bash
# Your own recordings.      usage: bash examples/own_data/run.sh SOURCE OUT
#   SOURCE         a folder with SPEAKER/**.{wav,flac,mp3,…}
#   SPEAKER_FROM   how paths name the speaker, as in `resynth manifest`  (parent)
#   PITCH=no       only units and speaker
# The other settings are at the top of ../recipe.sh.
source "$(dirname "$0")/../recipe.sh"
source=${1:?usage: bash examples/own_data/run.sh SOURCE OUT}
out=${2:?usage: bash examples/own_data/run.sh SOURCE OUT}
[ -d "$source" ] || fail "$source is not a folder: put recordings into one folder per speaker"

step "1 16 kHz, trailing silence cut, padded to whole pitch codes"
resynth preprocess --srcdir "$source" --outdir "$out/audio" --trim --pad
step "2 Splits"
resynth manifest "$out/audio" --outdir "$out/data" --speaker-from "${SPEAKER_FROM:-parent}" --valid-percent 5 --test-percent 5
step "3 Content units"
units "$out/data" "$out"
if [ "${PITCH:-yes}" != no ]; then
  step "4 Pitch codes"
  pitch "$out/data" "$out"
fi
step "5 Unit vocoder"
vocoder "$out/data" "$out"
step "6 Bundle, and the test set resynthesized"
publish "$out/data" "$out"
