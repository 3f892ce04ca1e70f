#!/usr/bin/env bash
# Collects the wheels that a host with CUDA, torch and torchaudio but without a network lacks for scripts/gpu.sh.
#   usage: bash scripts/gpu_wheels.sh FOLDER [PACKAGE …]      PACKAGE: what its step `imports` names in addition
#   PYTHON_VERSION   of that host  (3.12)
# Versions are those of constraints.txt. It is about 51 MB.
set -euo pipefail
folder=${1:?usage: bash scripts/gpu_wheels.sh FOLDER [PACKAGE …]}
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
python=python3
[ ! -x .venv/bin/python ] || python=.venv/bin/python
platforms=()
for platform in manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64; do
  platforms+=(--platform "$platform")
done
packages=(ve-fairseq hydra-core omegaconf bitarray portalocker sacrebleu soundfile librosa amfm_decompy tensorboardX
  soxr audioread pooch lazy_loader lxml colorama tabulate cffi pycparser platformdirs decorator msgpack constriction
  protobuf safetensors tqdm pytest pluggy iniconfig packaging pygments
  transformers tokenizers huggingface_hub regex PyYAML httpx2 httpcore2 truststore idna h11 anyio "$@")
download() {
  "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" --implementation cp \
    "${platforms[@]}" -c constraints.txt -d "$folder" "$@"
}
failed=()
download "${packages[@]}" || for package in "${packages[@]}"; do download "$package" || failed+=("$package"); done
# published as a source archive only; its wheel is pure Python
"$python" -m pip wheel -q --no-deps -w "$folder" antlr4-python3-runtime==4.9.3 || failed+=(antlr4-python3-runtime)
du -sh "$folder"
[ ${#failed[@]} = 0 ] || { echo "gpu_wheels.sh: error: no wheel of ${failed[*]}" >&2; exit 1; }
