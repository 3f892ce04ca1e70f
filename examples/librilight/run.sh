#!/usr/bin/env bash
# LibriLight: content units from a VQ-VAE over raw audio, 256 codes at 100 Hz.      usage: bash examples/librilight/run.sh OUT
#   SOURCE: a folder small/SPEAKER/BOOK/*.flac that is already here      VQVAE_UPDATES (400000)      VQVAE_OPTIONS
source "$(dirname "$0")/../recipe.sh"
out=${1:?usage: bash examples/librilight/run.sh OUT}
source=${SOURCE:-$out/small}
mkdir -p "$out"

step "1 LibriLight, the small part: 577 h; 35 GB to fetch, as much again unpacked (the paper took 6000 h: medium.tar too)"
if [ ! -d "$source" ]; then
  fetch https://dl.fbaipublicfiles.com/librilight/data/small.tar "$out/small.tar"
  tar -xf "$out/small.tar" -C "$out"
fi
step "2 Splits: the files are 16 kHz already; a speaker is the first folder"
resynth manifest "$source" --outdir "$out/data" --speaker-from '^([^/]+)/' --valid-percent 1 --test-percent 1
step "3 VQ-VAE: encoder, codebook and HiFi-GAN together"
# shellcheck disable=SC2086
train "$out/logs/vqvae.log" "$out/data" --task content_quantization --arch content_vqvae --criterion hifigan \
  --optimizer adam --adam-betas '(0.8,0.99)' --weight-decay 0.01 --lr 2e-4 --lr-scheduler fixed --force-anneal 2 \
  --lr-shrink 0.999 --batch-size 32 --max-update "${VQVAE_UPDATES:-$UPDATES}" \
  --tensorboard-logdir "$out/tensorboard" --save-dir "$out/vqvae_checkpoints" ${VQVAE_OPTIONS:-}
resynth export "$out/vqvae_checkpoints/checkpoint_last.pt" --outdir "$out/bundle"
step "4 Its units, and the test set through them and back"
resynth quantize "$out/data" --feature-type vqvae --checkpoint-path "$out/bundle" --device "$DEVICE"
resynth synthesize --path "$out/bundle" --input "$out/data" --outdir "$out/resynthesised" --device "$DEVICE"
