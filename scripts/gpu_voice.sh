#!/usr/bin/env bash
# The last step of gpu.sh: a voice in the seconds that are left, $STEP_SECONDS.      usage: bash scripts/gpu_voice.sh OUT
# VOICE is a folder of examples/asterisk/run.sh that was prepared elsewhere: data/ with units and pitch codes, audio/,
# km.safetensors, f0_checkpoints/checkpoint_best.pt. Without it, the embedded speech is prepared here, with log-mel units.
out=${1:?usage: bash scripts/gpu_voice.sh OUT} started=$SECONDS
root=$(cd "$(dirname "$0")/.." && pwd)
PATH_OF_GPU_SH=$PATH
F0_CONFIG=${F0_CONFIG:-asterisk_f0_vqvae} CONTENT=${CONTENT:---feature-type logmel} F0_METHOD=${F0_METHOD:-yaapt}
export VOCODER_OVERRIDES="${VOICE_OVERRIDES:-}" F0_OVERRIDES="${F0_OVERRIDES:-}"
if [ -n "${TINY:-}" ]; then
  K=20 F0_OVERRIDES="optimization.max_update=4 ++model.width=8 dataset.batch_size=2 dataset.num_workers=0"
  VOCODER_OVERRIDES="$VOCODER_OVERRIDES dataset.batch_size=2 dataset.num_workers=0 ++model.dim=16 ++model.num_layers=1 \
    ++model.intermediate_dim=16 ++task.segment_size=2560 criterion.discriminator_width=0.0625 optimization.max_update=3"
else
  F0_OVERRIDES="optimization.max_update=600 dataset.validate_interval_updates=300 checkpoint.save_interval_updates=300 $F0_OVERRIDES"
fi
source "$root/examples/recipe.sh"
PATH=$PATH_OF_GPU_SH
data=$out/data
mkdir -p "$data"

if [ -n "${VOICE:-}" ]; then
  [ -d "$VOICE/data" ] && [ -d "$VOICE/audio" ] || fail "VOICE=$VOICE needs the folders data and audio"
  cp -r "$VOICE/data/." "$data/"
  for manifest in "$data"/*.tsv; do  # the first line is the root of the audio, where it was prepared
    sed -i "1s|.*|$(cd "$VOICE/audio" && pwd)|" "$manifest"
  done
  mkdir -p "$out/f0_checkpoints"
  cp "$VOICE/km.safetensors" "$out/"
  cp "$VOICE/f0_checkpoints/checkpoint_best.pt" "$out/f0_checkpoints/"
else
  step "Embedded speech: splits, log-mel units, pitch codes"
  speech=$root/examples/asterisk/speech
  if [ -n "${TINY:-}" ]; then
    speech=$out/speech
    for voice in english italian; do
      mkdir -p "$speech/$voice"
      find "$root/examples/asterisk/speech/$voice" -name '*.flac' | sort | head -n 4 | xargs -I{} cp {} "$speech/$voice/"
    done
  fi
  resynth manifest "$speech" --outdir "$data" --speaker-from parent --valid-percent 10 --test-percent 10
  units "$data" "$out"
  pitch "$data" "$out"
fi
step "Vocoder"
# The minutes that are left, less 45 s to export and to synthesize; one at least, so that mistakes show even then.
minutes_left() {
  if [ -n "${TINY:-}" ]; then echo 60; return; fi
  python -c "print(max(${STEP_SECONDS:-600} - 45 - $((SECONDS - started)), 60) / 60)"
}
graphs=()
if [ "$DEVICE" != cpu ]; then
  if (plan_vocoder "$data" "$out" "$(minutes_left)" ++task.cuda_graphs=true); then
    graphs=(++task.cuda_graphs=true)
  else
    echo "the short training with CUDA graphs failed: training without them"
  fi
fi
timed_vocoder "$data" "$out" "$(minutes_left)" "${graphs[@]}"
step "Bundles, and the test set"
bundle "$out" --half
averaged "$out" --half
resynth synthesize --bundle "$out/bundle" --input "$data" --outdir "$out/resynthesized" --device "$DEVICE" -n 20
python - "$out" <<'PYTHON'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
lines = [line for line in (out / "checkpoints/train.log").read_text(errors="replace").splitlines() if "valid on" in line]
plan = dict(pair.split("=") for pair in (out / "plan.txt").read_text().split())
wavs = len(list((out / "resynthesized").rglob("*.wav")))
print(json.dumps({"planned_updates": int(plan["optimization.max_update"]), "wavs": wavs, "last": lines[-1].split(" | ", 1)[1][:120]}))
PYTHON
