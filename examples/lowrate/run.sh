#!/usr/bin/env bash
# A vocoder of units at 25 Hz, for spoken language models.      usage: bash examples/lowrate/run.sh SOURCE OUT
#   SOURCE    a folder with SPEAKER/**.{wav,flac,mp3,…}
#   MHUBERT   folder or hub name of the content encoder, whose eleventh block is taken  (slprl/mhubert-base-25hz)
#   PITCH=yes units, pitch codes at 12.5 Hz and speaker instead of units and speaker with predicted durations
# The other settings are at the top of ../recipe.sh; K is 500 here.
: "${K:=500}" "${CONTENT:=--feature-type hf --content-checkpoint ${MHUBERT:-slprl/mhubert-base-25hz} --layer 11}"
[ "${PITCH:-no}" != no ] || VOCODER_CONFIG=${VOCODER_CONFIG:-gslm_unit_hifigan}
source "$(dirname "$0")/../recipe.sh"
source=${1:?usage: bash examples/lowrate/run.sh SOURCE OUT}
out=${2:?usage: bash examples/lowrate/run.sh SOURCE OUT}
[ -d "$source" ] || fail "$source is not a folder: put recordings into one folder per speaker"

step "1 16 kHz, trailing silence cut, padded to whole units; splits"
resynth preprocess --srcdir "$source" --outdir "$out/audio" --trim --pad
resynth manifest "$out/audio" --outdir "$out/data" --speaker-from parent --valid-percent 5 --test-percent 5
step "2 Content units"
units "$out/data" "$out"
if [ "${PITCH:-no}" != no ]; then
  step "3 Pitch codes, two units each"
  pitch "$out/data" "$out"
  step "4 Unit vocoder"
  vocoder "$out/data" "$out"
else
  step "4 Unit vocoder with durations that do not depend on the speaker, as other loaders expect"
  vocoder "$out/data" "$out" ++model.duration_condition=none
fi
step "5 Bundle, and the test set resynthesized"
publish "$out/data" "$out"
step "6 For the code HiFi-GAN of fairseq, textlesslib and slamkit"
resynth export "$out/bundle" --to code-hifigan --outdir "$out/code_hifigan"
