#!/usr/bin/env bash
# The main job on the embedded speech, with nothing but this repository: prepare, train both models with
# fairseq-train, resynthesise and convert held-out utterances, print figures, write a page to listen to.
#   usage: bash scripts/demo.sh [OUTDIR]       OUTDIR: demo_output; an interrupted run continues there
# MINUTES=8 (default) is how long the vocoder trains at most.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-demo_output}
minutes=${MINUTES:-8}
bash scripts/setup.sh
DEVICE=cpu
source examples/recipe.sh # step, train
# threads that wait sleep instead of spinning: many times faster where the cores are shared
export OMP_WAIT_POLICY=PASSIVE
data=$out/data
mkdir -p "$out"

step "0 A voice that is trained already, before yours: held-out prompts, then each in the four other voices"
resynth synthesize --path examples/asterisk/bundle --input examples/asterisk/held_out --outdir "$out/trained"
resynth synthesize --path examples/asterisk/bundle --input examples/asterisk/held_out --outdir "$out/trained" --vc
echo "listen: $out/trained"
step "1 Manifest: 112 recordings of five voices; some are held out"
resynth manifest examples/asterisk/speech --outdir "$data" --speaker-from parent \
  --valid-percent 5 --test-percent 8 --seed 1
step "2 Content units: log-mel and k-means"
resynth kmeans "$data" --feature-type logmel --num-clusters 100 --out "$out/km.safetensors"
resynth quantize "$data" --kmeans "$out/km.safetensors"
step "3 F0 of every utterance"
resynth f0 "$data"
step "4 F0 quantiser: fairseq-train --task f0_quantization"
# Log-F0 with voicing beside it: 5 % of the frames are voiced wrongly in the end, 15 % with the paper's 20 codes of F0.
OMP_NUM_THREADS=1 train "$out/f0.log" "$data" \
  --task f0_quantization --arch f0_vqvae --criterion f0_vqvae --f0-input log_voicing --num-codes 64 \
  --optimizer adam --adam-betas '(0.8,0.99)' --lr 1e-3 --lr-scheduler fixed \
  --batch-size 16 --num-workers 0 --max-update 600 --validate-interval-updates 200 \
  --validate-interval 1000 --save-interval 1000 --save-dir "$out/f0_checkpoints"
resynth quantize-f0 "$data" --path "$out/f0_checkpoints/checkpoint_best.pt"
step "5 Unit vocoder: fairseq-train --task unit_resynthesis (up to $minutes minutes)"
precision=$(python -c 'import torch; print("bfloat16" if torch.cpu._is_amx_tile_supported() else "float32")')
# DNSMOS after the same minutes: 2.66, of unit_vocos_small 1.69, of the recordings 3.12 (docs/generators.md).
train "$out/vocoder.log" "$data" \
  --task unit_resynthesis --arch unit_source_filter_small --criterion hifigan --mel-loss multi \
  --discriminators mpd,mbstft --discriminator-width 0.0625 --discriminator-start 2000 \
  --optimizer adam --adam-betas '(0.8,0.99)' --lr 1e-3 --lr-scheduler fixed --force-anneal 1 \
  --lr-shrink 0.99 --batch-size 8 --num-workers 0 --autocast "$precision" --max-update 2500 \
  --stop-time-hours "$(python -c "print($minutes / 60)")" --validate-interval-updates 500 \
  --validate-interval 1000 --save-interval 1000 --save-interval-updates 500 --keep-interval-updates 1 \
  --tensorboard-logdir "$out/tensorboard" --eval-audio 3 --save-dir "$out/checkpoints"
resynth export "$out/checkpoints/checkpoint_last.pt" --f0 "$out/f0_checkpoints/checkpoint_best.pt" \
  --kmeans "$out/km.safetensors" --outdir "$out/bundle"
step "6 Synthesis: the held-out utterances, then each in the four other voices"
resynth synthesize --path "$out/bundle" --input "$data" --outdir "$out/resynthesised"
resynth synthesize --path "$out/bundle" --input "$data" --outdir "$out/converted" --vc
step "7 Codec: a context model of the streams, and the bits it needs for the held-out ones"
resynth fit-codec "$data" --split train --network 0 --out "$out/bundle/entropy.safetensors"
resynth codec-bench "$data" --split test --model "$out/bundle/entropy.safetensors"
step "8 Figures on held-out utterances, and the page"
python examples/asterisk/demo_report.py "$data" "$out/bundle" "$out/resynthesised" \
  "$out/converted" "$out" --trained "$out/trained"
printf '\nwavs:  %s, %s\nlisten: open %s\n' "$out/resynthesised" "$out/converted" "$out/index.html"
