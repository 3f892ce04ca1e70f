#!/usr/bin/env bash
# A spoken language model: units of speech, a transformer over them, its samples as speech.
#   usage: bash examples/gslm/run.sh SOURCE OUT      SOURCE/SPEAKER/**.{wav,flac,…}, for instance examples/asterisk/speech
#   LM_OVERRIDES   Hydra overrides of the language model's training (configs/gslm_language_model.yaml)
#   VOCAB          size of the byte-pair vocabulary  (500)
# The other settings are at the top of ../recipe.sh.
CONTENT=${CONTENT:---feature-type logmel} VOCODER_CONFIG=${VOCODER_CONFIG:-gslm_unit_hifigan}
source "$(dirname "$0")/../recipe.sh"
renamed LM_UPDATES "LM_OVERRIDES=\"optimization.max_update=${LM_UPDATES:-}\""
renamed LM_OPTIONS "LM_OVERRIDES, which takes Hydra overrides such as ++model.decoder_layers=4,"
source=${1:?usage: bash examples/gslm/run.sh SOURCE OUT}
out=${2:?usage: bash examples/gslm/run.sh SOURCE OUT}
data=$out/data lm=$out/lm
mkdir -p "$lm"

step "1 Speech to units"
resynth preprocess --srcdir "$source" --outdir "$out/audio" --pad
resynth manifest "$out/audio" --outdir "$data" --speaker-from parent --valid-percent 5 --test-percent 5
units "$data" "$out"
step "2 A vocoder of units and speaker that also predicts the durations of units"
vocoder "$data" "$out"
bundle "$out"
step "3 Units without repeats, in fairseq's format"
for split in train valid test; do
  awk '{ line = $1; for (i = 2; i <= NF; i++) if ($i != $(i - 1)) line = line " " $i; print line }' \
    "$data/$split.units" > "$lm/$split.txt"
done
fairseq-preprocess --only-source --trainpref "$lm/train.txt" --validpref "$lm/valid.txt" \
  --testpref "$lm/test.txt" --destdir "$lm/bin" > "$lm/preprocess.log" 2>&1 || fail "see $lm/preprocess.log"
step "4 Unit language model"
train gslm_language_model "$lm/bin" "$lm/checkpoints" LM_OVERRIDES
step "5 Samples that continue the first ten units of each test utterance, as speech"
cut -d' ' -f1-10 "$lm/test.txt" > "$lm/prompts.txt"
cpu=()
[ "$DEVICE" != cpu ] || cpu=(--cpu)
fairseq-interactive "$lm/bin" --user-dir "$plugin" --task language_modeling --path "$lm/checkpoints/checkpoint_last.pt" \
  "${cpu[@]}" --sampling --sampling-topk 10 --temperature 0.7 --beam 1 --nbest 1 --max-len-b 60 --seed 1 \
  --input "$lm/prompts.txt" > "$lm/samples.txt" 2> "$lm/interactive.log" || fail "see $lm/interactive.log"
voice=$(head -n 1 "$data/train.speaker")
resynth synthesize --bundle "$out/bundle" --input "$lm/samples.txt" --dur-prediction --target "$voice" --outdir "$out/samples"
step "6 A recording through units and back, in one command"
resynth resynthesize "$(sed -n '1p' "$data/test.tsv")/$(sed -n '2p' "$data/test.tsv" | cut -f1)" --bundle "$out/bundle" \
  --speaker "$voice" --out "$out/resynthesized.wav"
step "7 Byte-pair encoding: shorter sequences for the language model"
resynth bpe train --units "$data/train.units" --num-units "$K" --vocab-size "${VOCAB:-500}" --model "$lm/bpe.model"
for split in train valid test; do
  resynth bpe encode --units "$data/$split.units" --model "$lm/bpe.model" --out "$lm/$split.bpe"
done
