# What the recipes and scripts/demo.sh share; they source this file. Settings, as environment variables:
#   CONTENT         options of the content encoder  (--feature-type hubert --content-checkpoint hubert_base_ls960.pt --layer 6)
#   WHISPER         folder or hub name of a Whisper model, whose fourth block then is the content encoder
#   K               number of content units  (100)
#   F0_METHOD       yaapt, swift, dio or harvest  (yaapt for the configurations of the paper, else swift)
#   PITCH_OPTIONS   more options of `resynth f0`, for instance --accept-unvoiced
#   DEVICE          cuda or cpu  (cuda if a GPU is found)
#   F0_CONFIG, VOCODER_CONFIG   the files of configs/ to train by, without .yaml  (paper_f0_vqvae, paper_unit_hifigan)
#   TIMED_CONFIG    the file for a training in given minutes  (timed_source_filter; on a GPU timed_source_filter_gpu)
#   OVERRIDES       Hydra overrides for every training, for instance "optimization.max_update=20000 dataset.num_workers=8"
#   F0_OVERRIDES, VOCODER_OVERRIDES   Hydra overrides for one of the two; ++model.dim=256 also sets what a file leaves out
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -x "$repository/.venv/bin/resynth" ] && PATH="$repository/.venv/bin:$PATH"
export PATH PYTHONWARNINGS=ignore
command -v resynth > /dev/null || { echo "resynth is not installed: run bash scripts/setup.sh" >&2; exit 1; }

step() { printf '\n== %s\n' "$*"; }

fail() {
  local name=${0##*/}
  [ "$name" != run.sh ] || name=$(basename "$(dirname "$0")")
  echo "$name: error: $*" >&2
  exit 1
}

# renamed OLD NEW: refuses a setting of earlier versions, with what replaces it.
renamed() {
  [ -z "${!1:-}" ] || fail "the setting $1 no longer exists; use $2 instead"
}

renamed UPDATES "VOCODER_OVERRIDES=\"optimization.max_update=${UPDATES:-}\""
renamed F0_UPDATES "F0_OVERRIDES=\"optimization.max_update=${F0_UPDATES:-}\""
renamed VOCODER_OPTIONS "VOCODER_OVERRIDES, which takes Hydra overrides such as dataset.batch_size=32,"
renamed F0_OPTIONS "F0_OVERRIDES, which takes Hydra overrides such as dataset.batch_size=32,"

K=${K:-100}
if [ -n "${CONTENT:-}" ]; then
  read -r -d '' -a content <<< "$CONTENT" || true
elif [ -n "${WHISPER:-}" ]; then
  content=(--feature-type hf --content-checkpoint "$WHISPER" --layer 4)
else
  content=(--feature-type hubert --content-checkpoint hubert_base_ls960.pt --layer 6)
fi
F0_CONFIG=${F0_CONFIG:-paper_f0_vqvae}
VOCODER_CONFIG=${VOCODER_CONFIG:-paper_unit_hifigan}
case $F0_CONFIG in paper_*) F0_METHOD=${F0_METHOD:-yaapt} ;; *) F0_METHOD=${F0_METHOD:-swift} ;; esac
DEVICE=${DEVICE:-$(python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')}
TIMED_CONFIG=${TIMED_CONFIG:-$([ "$DEVICE" = cpu ] && echo timed_source_filter || echo timed_source_filter_gpu)}
plugin=$(resynth user-dir)

# fetch URL FILE [SHA256]: downloads a file unless that is done, says how large it is, resumes, checks size and hash.
fetch() {
  local url=$1 file=$2 hash=${3:-} size found
  [ -f "$file.ok" ] && return 0
  mkdir -p "$(dirname "$file")"
  size=$(curl -fsSLI --max-time 60 "$url" 2> /dev/null | tr -d '\r' |
    awk 'tolower($1) == "content-length:" { size = $2 } END { print size }') || size=
  [ -n "$size" ] || fail "cannot reach $url. Where a network is available, download it to $file, then: touch $file.ok"
  echo "$url: $((size / 1000000)) MB to $file ($(df -Pm "$(dirname "$file")" | awk 'NR == 2 { print $4 }') MB free)"
  found=$(stat -c %s "$file" 2> /dev/null || echo 0)
  if [ "$found" -gt "$size" ]; then
    rm "$file"
  fi
  [ "$found" = "$size" ] || curl -fL --retry 5 -C - -o "$file" "$url" ||
    fail "the download of $url stopped; the same command continues it"
  found=$(stat -c %s "$file")
  [ "$found" = "$size" ] || fail "$file has $found bytes, expected $size; the same command continues the download"
  if [ -n "$hash" ]; then
    echo "$hash  $file" | sha256sum --check --quiet - > /dev/null 2>&1 ||
      fail "$file does not have the SHA-256 $hash: remove it and run the same command again"
  fi
  touch "$file.ok"
}

# splits VALID TEST: sets `splits`, the options of resynth manifest: the lists of the original in the folder
# $REFERENCES, or these percentages.
splits() {
  # shellcheck disable=SC2034  # the recipe uses it
  splits=(--valid-percent "$1" --test-percent "$2")
  if [ -n "${REFERENCES:-}" ]; then
    splits=(--ref-train "$REFERENCES/train.txt" --ref-valid "$REFERENCES/val.txt" --ref-test "$REFERENCES/test.txt")
  fi
}

# units DATA OUT: k-means, unless it exists, and the content units.
units() {
  [ -f "$2/km.safetensors" ] ||
    resynth kmeans "$1" "${content[@]}" --num-clusters "$K" --out "$2/km.safetensors" --device "$DEVICE"
  resynth quantize "$1" "${content[@]}" --kmeans "$2/km.safetensors" --device "$DEVICE"
}

# once SAVE_DIR COMMAND …: runs a training unless the very same command has finished in that folder. Run again, fairseq
# would make one update more, and what was made with the model would no longer belong to it.
once() {
  local folder=$1 done=$1/finished.txt
  shift
  if [ -f "$folder/checkpoint_last.pt" ] && [ "$(cat "$done" 2> /dev/null)" = "$*" ]; then
    echo "reused: $folder, whose training has finished"
    return 0
  fi
  rm -f "$done"
  "$@" || return
  printf '%s\n' "$*" > "$done"
}

# quoted TEXT: TEXT as Hydra reads it unchanged, with spaces, commas and parentheses.
quoted() { printf "'%s'" "${1//\'/\\\'}"; }

# train CONFIG DATA SAVE_DIR VARIABLE [OVERRIDE …]: one training by configs/CONFIG.yaml, once. The overrides that
# follow count least, then those in $OVERRIDES, and those in the variable of the given name count most.
train() {
  local config=$1 data=$2 save_dir=$3 variable=$4 given
  shift 4
  [ -f "$repository/configs/$config.yaml" ] ||
    fail "no configuration is called $config; configs/ has $(basename -s .yaml "$repository"/configs/*.yaml | paste -sd ' ')"
  [ -d "$data" ] || fail "the data directory $data does not exist"
  [ "$DEVICE" != cpu ] || set -- common.cpu=true "$@"
  read -r -d '' -a given <<< "${OVERRIDES:-} ${!variable:-}" || true
  once "$save_dir" hydra_train "$save_dir/train.log" --config-dir "$repository/configs" --config-name "$config" \
    common.user_dir="$(quoted "$plugin")" task.data="$(quoted "$data")" checkpoint.save_dir="$(quoted "$save_dir")" \
    "$@" "${given[@]}"
}

# hydra_train LOG ARGUMENT …: fairseq-hydra-train; shows validations and the end, and writes everything to the log.
hydra_train() {
  local log=$1 status error
  shift
  mkdir -p "$(dirname "$log")"
  set +e
  fairseq-hydra-train "$@" 2>&1 | tee "$log" |
    grep --line-buffered -oE "valid on .*|done training.*|Loaded checkpoint .*" | cut -c1-110
  status=${PIPESTATUS[0]}
  set -e
  [ "$status" = 0 ] && return
  error=$(grep -E '^[A-Za-z_.]*(Error|Exception)\b|^Could not override' "$log" | tail -n 1) || tail -n 15 "$log" >&2
  fail "the training failed, see $log: $error"
}

# pitch DATA OUT: F0, the F0 quantizer, pitch codes.
pitch() {
  # shellcheck disable=SC2086  # the options are words
  resynth f0 "$1" --method "$F0_METHOD" ${PITCH_OPTIONS:-}
  train "$F0_CONFIG" "$1" "$2/f0_checkpoints" F0_OVERRIDES
  resynth quantize-f0 "$1" --checkpoint "$2/f0_checkpoints/checkpoint_best.pt"
}

# vocoder DATA OUT [OVERRIDE …]: the unit vocoder.
vocoder() { train "$VOCODER_CONFIG" "$1" "$2/checkpoints" VOCODER_OVERRIDES "${@:3}"; }

# full_crops DATA SAMPLES: takes recordings shorter than a crop out of the training split, so that all batches have one
# shape, as --cuda-graphs and --compile need it.
full_crops() {
  python - "$1/train" "$2" << 'PYTHON'
import pathlib, sys
manifest, speakers = (pathlib.Path(sys.argv[1] + suffix) for suffix in (".tsv", ".speaker"))
root, *rows = manifest.read_text().splitlines()
pairs = list(zip(rows, speakers.read_text().splitlines(), strict=True))
kept = [pair for pair in pairs if int(pair[0].split("\t")[1]) >= int(sys.argv[2])]
if not kept:
    sys.exit(f"{manifest}: no recording has {sys.argv[2]} samples")
manifest.write_text("\n".join([root, *(row for row, _ in kept)]) + "\n")
speakers.write_text("".join(f"{name}\n" for _, name in kept))
print(f"{manifest}: {len(kept)} of {len(pairs)} recordings are as long as a crop; the others are left out")
PYTHON
}

# plan_vocoder DATA OUT MINUTES [OVERRIDE …]: how many updates by configs/$TIMED_CONFIG.yaml fit into so many minutes,
# measured by a short training; writes OUT/plan.txt, unless it exists.
plan_vocoder() {
  local data=$1 out=$2 minutes=$3 updates=160 started=$SECONDS
  shift 3
  [ "$DEVICE" != cpu ] || updates=24
  [ ! -f "$out/plan.txt" ] || return 0
  local PROBE_OVERRIDES="${VOCODER_OVERRIDES:-} optimization.max_update=$updates \
    criterion.discriminator_start=$((updates / 2)) common.log_format=json common.log_interval=$((updates / 8)) \
    dataset.disable_validation=true checkpoint.no_save=true"
  rm -rf "$out/probe"
  train "$TIMED_CONFIG" "$data" "$out/probe" PROBE_OVERRIDES "$@"
  python "$repository/examples/training_plan.py" "$out/probe/train.log" --minutes "$minutes" \
    --elapsed $((SECONDS - started)) > "$out/plan.tmp" || fail "no plan for the training, see $out/probe/train.log"
  mv "$out/plan.tmp" "$out/plan.txt"
}

# timed_vocoder DATA OUT MINUTES [OVERRIDE …]: the unit vocoder in so many minutes, with a learning rate that reaches 0
# when they are over.
timed_vocoder() {
  local plan
  plan_vocoder "$@"
  read -r -d '' -a plan < "$2/plan.txt" || true
  train "$TIMED_CONFIG" "$1" "$2/checkpoints" VOCODER_OVERRIDES "${plan[@]}" "${@:4}"
}

# bundle OUT [OPTION …]: the trained models as one folder, OUT/bundle; options of resynth export.
bundle() { exported "$1" "$1/bundle" "${@:2}"; }

# averaged OUT [OPTION …]: the same with the averaged weights, OUT/bundle_averaged.
averaged() { exported "$1" "$1/bundle_averaged" --ema "${@:2}"; }

exported() {
  local parts=()
  [ -f "$1/f0_checkpoints/checkpoint_best.pt" ] && parts+=(--f0 "$1/f0_checkpoints/checkpoint_best.pt")
  [ -f "$1/km.safetensors" ] && parts+=(--kmeans "$1/km.safetensors")
  resynth export "$1/checkpoints/checkpoint_last.pt" "${parts[@]}" --outdir "$2" "${@:3}"
}

# publish DATA OUT: the bundle, and the test set resynthesized with it.
publish() {
  bundle "$2"
  resynth synthesize --bundle "$2/bundle" --input "$1" --outdir "$2/resynthesized" --device "$DEVICE"
}
