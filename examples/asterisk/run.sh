#!/usr/bin/env bash
# All steps of README.md, each resumed where an interrupted run left it.
#   bash examples/asterisk/run.sh OUT
# WHISPER: folder or hub name of the Whisper model whose fourth block gives the units (openai/whisper-base);
#   UNITS=logmel: log-mel units instead, which need no weights
# CONFIG: of the vocoder (asterisk_unit_source_filter); asterisk_unit_hifigan: the paper's nets
# OVERRIDES: hydra overrides of both trainings, e.g. OVERRIDES="common.cpu=true optimization.max_update=2000";
# VOCODER_OVERRIDES: of the second alone, e.g. VOCODER_OVERRIDES="+model.upsample_initial_channel=128"
# TUXPAINT=1: also Tux Paint's seven voices (161 MB, GPL-2), which have transcripts
set -euo pipefail
out=${1:?usage: run.sh OUT}
cd "$(dirname "$0")/../.."
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -d .venv ] && export PATH="$PWD/.venv/bin:$PATH"
source scripts/once.sh
data=$out/data
encoder=(--feature-type hf --checkpoint-path "${WHISPER:-openai/whisper-base}" --layer 4)
[ "${UNITS:-whisper}" = logmel ] && encoder=(--feature-type logmel)

train() {
  # shellcheck disable=SC2086  # the overrides are words
  once "$2" fairseq-hydra-train --config-dir configs --config-name "$1" "task.data=$data" "checkpoint.save_dir=$2" \
    ${OVERRIDES:-} "${@:3}"
}

[ -d "$out/g722" ] || bash examples/asterisk/fetch.sh "$out"
resynth preprocess --srcdir "$out/g722" --outdir "$out/audio" --pad --trim
if [ -n "${TUXPAINT:-}" ]; then
  [ -d "$out/tuxpaint" ] || bash examples/asterisk/tuxpaint.sh "$out"
  resynth preprocess --srcdir "$out/tuxpaint" --outdir "$out/audio" --pad --trim
fi
[ -f "$data/test.tsv" ] || resynth manifest "$out/audio" --outdir "$data" --speaker-from '^([^/]+)/'
[ -f "$out/km.safetensors" ] || resynth kmeans "$data" "${encoder[@]}" --num-clusters 200 --out "$out/km.safetensors"
resynth quantize "$data" "${encoder[@]}" --kmeans "$out/km.safetensors"
resynth f0 "$data" --accept-unvoiced
train asterisk_f0_vqvae "$out/f0_checkpoints"
resynth quantize-f0 "$data" --path "$out/f0_checkpoints/checkpoint_last.pt"
# shellcheck disable=SC2086
train "${CONFIG:-asterisk_unit_source_filter}" "$out/checkpoints" ${VOCODER_OVERRIDES:-}
resynth export "$out/checkpoints/checkpoint_last.pt" --f0 "$out/f0_checkpoints/checkpoint_last.pt" \
  --kmeans "$out/km.safetensors" --outdir "$out/bundle"
resynth fit-codec "$data" --split train --network 0 --out "$out/bundle/entropy.safetensors"
resynth synthesize --path "$out/bundle" --input "$data" --outdir "$out/resynthesised"
resynth synthesize --path "$out/bundle" --input "$data" --outdir "$out/converted" --vc
resynth evaluate --generated "$out/resynthesised" --reference "$data" --baselines world,opus:9 --outdir "$out/report"
resynth evaluate --generated "$out/converted" --pattern '{name}_{target}' --reference "$data" --outdir "$out/report_converted"
