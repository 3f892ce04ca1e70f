#!/usr/bin/env bash
# A spoken language model: units of speech, a transformer over them, its samples as speech.
#   usage: bash examples/gslm/run.sh SOURCE OUT      SOURCE/SPEAKER/**.{wav,flac,…}, examples/asterisk/speech for instance
#   LM_UPDATES (20000), LM_OPTIONS, VOCAB (500, of the byte-pair encoding)
CONTENT=${CONTENT:---feature-type logmel}
source "$(dirname "$0")/../recipe.sh"
source=${1:?usage: bash examples/gslm/run.sh SOURCE OUT}
out=${2:?usage: bash examples/gslm/run.sh SOURCE OUT}
data=$out/data lm=$out/lm
mkdir -p "$lm"

step "1 Speech to units"
resynth preprocess --srcdir "$source" --outdir "$out/audio" --pad
resynth manifest "$out/audio" --outdir "$data" --speaker-from parent --valid-percent 5 --test-percent 5
units "$data" "$out"
step "2 A vocoder of units and speaker that also predicts how long a unit lasts"
vocoder "$data" "$out" --streams units,speaker --duration-predictor
resynth export "$out/checkpoints/checkpoint_last.pt" --kmeans "$out/km.safetensors" --outdir "$out/bundle"
step "3 Units without repeats, in fairseq's format"
for split in train valid test; do
  awk '{ line = $1; for (i = 2; i <= NF; i++) if ($i != $(i - 1)) line = line " " $i; print line }' \
    "$data/$split.units" > "$lm/$split.txt"
done
fairseq-preprocess --only-source --trainpref "$lm/train.txt" --validpref "$lm/valid.txt" \
  --testpref "$lm/test.txt" --destdir "$lm/bin" > "$lm/preprocess.log" 2>&1 || fail "see $lm/preprocess.log"
step "4 Unit language model: fairseq-train --task language_modeling"
# shellcheck disable=SC2086
train "$out/logs/lm.log" "$lm/bin" --task language_modeling --arch transformer_lm --share-decoder-input-output-embed \
  --dropout 0.1 --optimizer adam --adam-betas '(0.9,0.98)' --clip-norm 1.0 --lr 0.0005 --lr-scheduler inverse_sqrt \
  --warmup-updates 400 --warmup-init-lr 1e-07 --tokens-per-sample 1024 --max-tokens 4096 --sample-break-mode eos \
  --required-batch-size-multiple 1 --skip-invalid-size-inputs-valid-test --max-update "${LM_UPDATES:-20000}" --save-dir "$lm/checkpoints" ${LM_OPTIONS:-}
step "5 Samples that go on from the first ten units of the test set, as speech"
cut -d' ' -f1-10 "$lm/test.txt" > "$lm/prompts.txt"
fairseq-interactive "$lm/bin" --user-dir "$plugin" --task language_modeling --path "$lm/checkpoints/checkpoint_last.pt" \
  "${cpu[@]}" --sampling --sampling-topk 10 --temperature 0.7 --beam 1 --nbest 1 --max-len-b 60 --seed 1 \
  --input "$lm/prompts.txt" > "$lm/samples.txt" 2> "$lm/interactive.log" || fail "see $lm/interactive.log"
voice=$(head -n 1 "$data/train.speaker")
resynth synthesize --path "$out/bundle" --input "$lm/samples.txt" --dur-prediction --speaker "$voice" --outdir "$out/samples"
step "6 A recording through units and back, in one command"
resynth resynthesize "$(sed -n '1p' "$data/test.tsv")/$(sed -n '2p' "$data/test.tsv" | cut -f1)" --path "$out/bundle" \
  --speaker "$voice" --output "$out/resynthesised.wav"
step "7 Byte-pair encoding: shorter sequences for the language model"
resynth bpe train --units "$data/train.units" --num-units "$K" --vocab-size "${VOCAB:-500}" --model "$lm/bpe.model"
for split in train valid test; do
  resynth bpe encode --units "$data/$split.units" --model "$lm/bpe.model" --out "$lm/$split.bpe"
done
