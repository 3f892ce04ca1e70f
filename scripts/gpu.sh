#!/usr/bin/env bash
# Everything that needs a GPU, in at most 9 minutes: equality with the CPU, training speed beside the published loop, the
# loader, preparation, and a voice trained in the minutes that are left.
#   usage: bash scripts/gpu.sh [OUT]          (gpu_output)
#   WHEELS=FOLDER  wheels of what this host lacks; installed into OUT/site without a network (docs/gpu.md)
#   STEPS="…"      only these steps, of: imports tests step16 step64 published epochs preparation
#                  compiled voice
#   MINUTES=9      for all steps together; each also has a limit of its own, and one that fails does not stop the next
#   VOICE=FOLDER   OUT of examples/asterisk/run.sh or examples/conversion/any_to_any.sh, prepared elsewhere up to the
#                  vocoder; without it the voice learns from the embedded speech
#   WHISPER=FOLDER a Whisper model of transformers for the step `preparation`
#   VOICE_OVERRIDES  Hydra overrides for the voice, for instance ++task.speaker_input=vector
#   TINY=1         tiny sizes, on the CPU where there is no GPU: finds mistakes before a GPU's minutes are spent on them
#   PYTHON         the interpreter, with torch  (.venv/bin/python or python3)
# OUT gets a log and a JSON file for each step as it ends, and summary.md.
set -euo pipefail
out=${1:-gpu_output}
mkdir -p "$out/bin"
out=$(cd "$out" && pwd)
[ -z "${WHEELS:-}" ] || WHEELS=$(cd "$WHEELS" && pwd)
[ -z "${WHISPER:-}" ] || { WHISPER=$(cd "$WHISPER" && pwd) && export WHISPER; }
[ -z "${VOICE:-}" ] || { VOICE=$(cd "$VOICE" && pwd) && export VOICE; }
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$(command -v python3)
  [ ! -x .venv/bin/python ] || PYTHON=$PWD/.venv/bin/python
fi
python=$PYTHON
"$python" -c 'import torch' || { echo "gpu.sh: error: $python has no torch; name another with PYTHON=…" >&2; exit 2; }
if [ -n "${WHEELS:-}" ]; then
  if [ ! -f "$out/site/.done" ]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$out/site" \
      "$WHEELS"/*.whl > "$out/wheels.log" 2>&1 || { tail -n 5 "$out/wheels.log" >&2; exit 2; }
    touch "$out/site/.done"
  fi
fi
# The commands, whether or not this project and fairseq are installed.
command_file() { printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$python" "$2" > "$out/bin/$1" && chmod +x "$out/bin/$1"; }
command_file python ""
command_file resynth "-m fairseq_resynth.cli.main"
command_file fairseq-hydra-train "-m fairseq_cli.hydra_train"
export PYTHONPATH="$out/site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PATH="$out/bin:$out/site/bin:$PATH"
export PYTHONWARNINGS=ignore TQDM_DISABLE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$python" scripts/gpu_steps.py "$out"
