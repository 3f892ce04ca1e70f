#!/usr/bin/env bash
# All steps of README.md, each resumed where an interrupted run left it.
#   bash examples/asterisk/run.sh OUT
# OVERRIDES: hydra overrides of both trainings, e.g. OVERRIDES="common.cpu=true optimization.max_update=2000";
# VOCODER_OVERRIDES: of the second alone, e.g. VOCODER_OVERRIDES="+model.upsample_initial_channel=128"
# TUXPAINT=1: also Tux Paint's seven voices (161 MB, GPL-2), which have transcripts
set -euo pipefail
out=${1:?usage: run.sh OUT}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -d .venv ] && export PATH="$PWD/.venv/bin:$PATH"
data=$out/data

train() {
  # shellcheck disable=SC2086  # the overrides are words
  fairseq-hydra-train --config-dir configs --config-name "$1" "task.data=$data" "checkpoint.save_dir=$2" \
    ${OVERRIDES:-} "${@:3}"
}

[ -d "$out/g722" ] || bash examples/asterisk/fetch.sh "$out"
resynth preprocess --srcdir "$out/g722" --outdir "$out/audio" --pad --trim
if [ -n "${TUXPAINT:-}" ]; then
  [ -d "$out/tuxpaint" ] || bash examples/asterisk/tuxpaint.sh "$out"
  resynth preprocess --srcdir "$out/tuxpaint" --outdir "$out/audio" --pad --trim
fi
[ -f "$data/test.tsv" ] || resynth manifest "$out/audio" --outdir "$data" --speaker-from '^([^/]+)/'
[ -f "$out/km.safetensors" ] || resynth kmeans "$data" --feature-type logmel --num-clusters 200 --out "$out/km.safetensors"
resynth quantize "$data" --kmeans "$out/km.safetensors"
resynth f0 "$data" --accept-unvoiced
train asterisk_f0_vqvae "$out/f0_checkpoints"
resynth quantize-f0 "$data" --path "$out/f0_checkpoints/checkpoint_last.pt"
# shellcheck disable=SC2086
train asterisk_unit_hifigan "$out/checkpoints" ${VOCODER_OVERRIDES:-}
resynth export "$out/checkpoints/checkpoint_last.pt" --f0 "$out/f0_checkpoints/checkpoint_last.pt" \
  --kmeans "$out/km.safetensors" --outdir "$out/bundle"
resynth synthesize --path "$out/bundle" --input "$data" --outdir "$out/resynthesised" --with-reference
resynth synthesize --path "$out/bundle" --input "$data" --outdir "$out/converted" --vc --random-speakers 1
