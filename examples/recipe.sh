# What the recipes share; a run.sh sources this. Settings, by environment:
#   CONTENT    options of the content encoder      (--feature-type hubert --checkpoint-path hubert_base_ls960.pt --layer 6)
#   K          number of content units             (100)
#   UPDATES, F0_UPDATES                            (400000 each, as the paper)
#   VOCODER_OPTIONS, F0_OPTIONS                    more for fairseq-train, --batch-size 32 for instance
#   PITCH_OPTIONS  of resynth f0, --accept-unvoiced for instance
#   DEVICE     cuda or cpu                         (cuda if there is one)
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$repository/scripts/once.sh"
[ -x "$repository/.venv/bin/resynth" ] && PATH="$repository/.venv/bin:$PATH"
export PATH PYTHONWARNINGS=ignore
command -v resynth > /dev/null || { echo "resynth is not installed: bash scripts/setup.sh" >&2; exit 1; }
K=${K:-100}
UPDATES=${UPDATES:-400000}
F0_UPDATES=${F0_UPDATES:-400000}
CONTENT=${CONTENT:---feature-type hubert --checkpoint-path hubert_base_ls960.pt --layer 6}
DEVICE=${DEVICE:-$(python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')}
cpu=()
[ "$DEVICE" = cpu ] && cpu=(--cpu)
plugin=$(resynth user-dir)

step() { printf '\n== %s\n' "$*"; }

fail() {
  echo "$(basename "$(dirname "$0")"): error: $*" >&2
  exit 1
}

# fetch URL FILE [SHA256]: says how much it will take, resumes, checks the size and the hash.
fetch() {
  local url=$1 file=$2 hash=${3:-} size found
  [ -f "$file.ok" ] && return 0
  mkdir -p "$(dirname "$file")"
  size=$(curl -fsSLI --max-time 60 "$url" 2> /dev/null | tr -d '\r' |
    awk 'tolower($1) == "content-length:" { size = $2 } END { print size }') || size=
  [ -n "$size" ] || fail "cannot reach $url. Where there is a network, download it to $file, then: touch $file.ok"
  echo "$url: $((size / 1000000)) MB to $file ($(df -Pm "$(dirname "$file")" | awk 'NR == 2 { print $4 }') MB free)"
  found=$(stat -c %s "$file" 2> /dev/null || echo 0)
  if [ "$found" -gt "$size" ]; then
    rm "$file"
  fi
  [ "$found" = "$size" ] || curl -fL --retry 5 -C - -o "$file" "$url" || fail "the download of $url stopped; the same command goes on"
  found=$(stat -c %s "$file")
  [ "$found" = "$size" ] || fail "$file has $found bytes, expected $size; the same command goes on"
  if [ -n "$hash" ]; then
    echo "$hash  $file" | sha256sum --check --quiet - > /dev/null 2>&1 ||
      fail "$file has not the SHA-256 $hash: remove it and run this again"
  fi
  touch "$file.ok"
}

# splits VALID TEST: sets splits, options of resynth manifest: the original's lists in $REFERENCES, or so many percent.
splits() {
  splits=(--valid-percent "$1" --test-percent "$2")
  if [ -n "${REFERENCES:-}" ]; then
    splits=(--ref-train "$REFERENCES/train.txt" --ref-valid "$REFERENCES/val.txt" --ref-test "$REFERENCES/test.txt")
  fi
}

# units DATA OUT: k-means, content units.
units() {
  # shellcheck disable=SC2086
  [ -f "$2/km.safetensors" ] || resynth kmeans "$1" $CONTENT --num-clusters "$K" --out "$2/km.safetensors" --device "$DEVICE"
  # shellcheck disable=SC2086
  resynth quantize "$1" $CONTENT --kmeans "$2/km.safetensors" --device "$DEVICE"
}

# train LOG ARGUMENT …: fairseq-train, once; validations and the end are shown, the rest is in the log.
train() {
  local log=$1 save_dir
  shift
  save_dir=$(printf '%s\n' "$@" | sed -n '/^--save-dir$/{n;p}')
  mkdir -p "$(dirname "$log")"
  once "$save_dir" fairseq_train "$log" "$@" "${cpu[@]}" --user-dir "$plugin" --log-format simple --no-epoch-checkpoints
}

fairseq_train() {
  local log=$1 status
  shift
  set +e
  fairseq-train "$@" 2>&1 | tee "$log" | grep --line-buffered -oE "valid on .*|done training.*|Loaded checkpoint .*" | cut -c1-110
  status=${PIPESTATUS[0]}
  set -e
  [ "$status" = 0 ] || { tail -n 15 "$log" >&2; fail "training failed, see $log"; }
}

# pitch DATA OUT: F0, the F0 quantiser, pitch codes.
pitch() {
  # shellcheck disable=SC2086
  resynth f0 "$1" ${PITCH_OPTIONS:-}
  # shellcheck disable=SC2086
  train "$2/logs/f0.log" "$1" --task f0_quantization --arch f0_vqvae --criterion f0_vqvae \
    --optimizer adam --adam-betas '(0.8,0.99)' --weight-decay 0.01 --lr 2e-4 --lr-scheduler fixed \
    --force-anneal 2 --lr-shrink 0.999 --batch-size 16 --max-update "$F0_UPDATES" \
    --save-dir "$2/f0_checkpoints" ${F0_OPTIONS:-}
  resynth quantize-f0 "$1" --path "$2/f0_checkpoints/checkpoint_best.pt"
}

# vocoder DATA OUT [OPTION …]: the unit vocoder.
vocoder() {
  local data=$1 out=$2
  shift 2
  # shellcheck disable=SC2086
  train "$out/logs/vocoder.log" "$data" --task unit_resynthesis --arch unit_hifigan --criterion hifigan \
    --optimizer adam --adam-betas '(0.8,0.99)' --weight-decay 0.01 --lr 2e-4 --lr-scheduler fixed \
    --force-anneal 2 --lr-shrink 0.999 --batch-size 16 --max-update "$UPDATES" \
    --tensorboard-logdir "$out/tensorboard" --save-dir "$out/checkpoints" "$@" ${VOCODER_OPTIONS:-}
}

# publish DATA OUT: the bundle, and the test set resynthesised.
publish() {
  local f0=()
  [ -f "$2/f0_checkpoints/checkpoint_best.pt" ] && f0=(--f0 "$2/f0_checkpoints/checkpoint_best.pt")
  local kmeans=()
  [ -f "$2/km.safetensors" ] && kmeans=(--kmeans "$2/km.safetensors")
  resynth export "$2/checkpoints/checkpoint_last.pt" "${f0[@]}" "${kmeans[@]}" --outdir "$2/bundle"
  resynth synthesize --path "$2/bundle" --input "$1" --outdir "$2/resynthesised" --device "$DEVICE"
}
