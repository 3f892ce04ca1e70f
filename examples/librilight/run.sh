#!/usr/bin/env bash
# LibriLight: content units from a VQ-VAE over raw audio, 256 codes at 100 Hz.      usage: bash examples/librilight/run.sh OUT
#   SOURCE            a folder small/SPEAKER/BOOK/*.flac that you already have
#   VQVAE_OVERRIDES   Hydra overrides of the training (configs/paper_content_vqvae.yaml)
# The other settings are at the top of ../recipe.sh.
source "$(dirname "$0")/../recipe.sh"
renamed VQVAE_UPDATES "VQVAE_OVERRIDES=\"optimization.max_update=${VQVAE_UPDATES:-}\""
renamed VQVAE_OPTIONS "VQVAE_OVERRIDES, which takes Hydra overrides such as dataset.batch_size=16,"
out=${1:?usage: bash examples/librilight/run.sh OUT}
source=${SOURCE:-$out/small}
mkdir -p "$out"

step "1 LibriLight, the small part: 577 h; 35 GB to download, as much again unpacked (the paper used 6000 h, medium.tar too)"
if [ ! -d "$source" ]; then
  fetch https://dl.fbaipublicfiles.com/librilight/data/small.tar "$out/small.tar"
  tar -xf "$out/small.tar" -C "$out"
fi
step "2 Splits: the files are 16 kHz already; the first folder names the speaker"
resynth manifest "$source" --outdir "$out/data" --speaker-from '^([^/]+)/' --valid-percent 1 --test-percent 1
step "3 VQ-VAE: encoder, codebook and HiFi-GAN together"
train paper_content_vqvae "$out/data" "$out/vqvae_checkpoints" VQVAE_OVERRIDES
resynth export "$out/vqvae_checkpoints/checkpoint_last.pt" --outdir "$out/bundle"
step "4 Its units, and the test set through them and back"
resynth quantize "$out/data" --feature-type vqvae --content-checkpoint "$out/bundle" --device "$DEVICE"
resynth synthesize --bundle "$out/bundle" --input "$out/data" --outdir "$out/resynthesized" --device "$DEVICE"
