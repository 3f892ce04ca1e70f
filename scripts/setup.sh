#!/usr/bin/env bash
# Makes .venv and installs the plugin into it, with the versions of constraints.txt, without resolving; where that
# list does not cover the platform, pip resolves.
#   usage: bash scripts/setup.sh [EXTRA …]      EXTRA: test eval hf onnx …, as in setup.py
# PYTHON=/path/to/python chooses the interpreter; otherwise the first of python3.11, python3.12, python3.13 and
# python3 that is 3.11 to 3.13. fairseq has no package for 3.13: there everything but training and fairseq's own
# content encoders works. A second run with nothing new takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        > /dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  {
    echo "setup: error: found no Python 3.11, 3.12 or 3.13 with venv (tried: ${PYTHON:-python3.11 python3.12 python3.13 python3})."
    echo "Install one (Debian and Ubuntu: apt-get install python3.11 python3.11-venv) or name it: PYTHON=/path/to/python3.11 bash scripts/setup.sh"
  } >&2
  return 1
}

# The pip that comes with Python is unpacked, since `ensurepip` takes seconds to compile it, and then replaced.
make_environment() {
  "$1" -m venv --without-pip .venv
  .venv/bin/python - 2> /dev/null <<'PYTHON' || .venv/bin/python -m ensurepip > /dev/null
import ensurepip, pathlib, sysconfig, zipfile
folders = [pathlib.Path(ensurepip.__file__).with_name("_bundled")]
folders += [pathlib.Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or folders[0])]  # where Debian keeps it
wheel = next(wheel for folder in folders for wheel in folder.glob("pip-*.whl"))
zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
PYTHON
}

# torchaudio's wheel is built against CUDA torch. Beside a CPU build its optional C++ library fails to
# load and takes the import with it; what is used here runs without that library.
check_imports() {
  .venv/bin/python -W ignore - <<'PYTHON'
import importlib.util, pathlib, sys
import torch
try:
    import torchaudio
except OSError:
    folder = importlib.util.find_spec("torchaudio").submodule_search_locations[0]
    for library in pathlib.Path(folder, "lib").glob("*.so"):
        library.unlink()
    import torchaudio
import omegaconf, sentencepiece, tensorboardX
import fairseq_resynth.resynthesizer
fairseq = "no fairseq for this Python: no training"
if sys.version_info < (3, 13):
    import fairseq_resynth.tasks
    fairseq = f"fairseq {sys.modules['fairseq'].__version__}"
print(f"{fairseq}, torch {torch.__version__}, torchaudio {torchaudio.__version__}: "
      f"fairseq_resynth {fairseq_resynth.__version__} is ready in .venv")
PYTHON
}

# listed NAME …: the lines of constraints.txt whose comment has one of the names, base or an extra.
listed() {
  awk -F '  # ' -v names="$*" 'BEGIN { n = split(names, name, " ") }
    { for (i = 1; i <= n; i++) if (index(" " $2 " ", " " name[i] " ")) { print $1; next } }' constraints.txt
}

# listed_version PACKAGE …: their lines NAME==VERSION
listed_version() { local IFS='|'; grep -o -E "^($*)==[^ ;]*" constraints.txt; }

# Without --no-compile, pip would compile thousands of files that are never imported.
pip_install() { .venv/bin/python -m pip install -q --no-compile "$@"; }

# Installs the list as it is. pyworld and amfm_decompy are built with numpy, which therefore comes first.
install_listed() {
  # A newer pip than Python's takes half the time to find the listed versions.
  pip_install "$(listed_version pip)" || return
  # torch by its exact version, so that a local wheel is taken, and with the dependencies of that build
  pip_install -c constraints.txt $(listed_version setuptools wheel numpy Cython torch) || return
  listed base "$@" > .venv/listed.txt
  PYTHONWARNINGS=ignore pip_install --no-deps --no-build-isolation -r .venv/listed.txt -e . || return
  missing_package=$(.venv/bin/python -m pip check | grep 'which is not installed') || true
  [ -z "$missing_package" ] || { echo "$missing_package" && return 1; }
}

install_resolved() {
  pip_install -c constraints.txt setuptools wheel numpy cython
  pip_install "$(listed_version torch)"
  pip_install --no-build-isolation -c constraints.txt -e ".${extras:+[$extras]}"
}

extras=$(printf '%s\n' "$@" | sort -u | paste -sd, -)
wanted="$(cat setup.py constraints.txt | sha256sum | cut -c1-16)"
installed=.venv/.installed
for extra in "" "$@"; do
  grep -qxF "$wanted ${extra:-base}" "$installed" 2> /dev/null || missing=1
done
if [ -n "${missing:-}" ]; then
  if [ ! -x .venv/bin/pip ]; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version)"
    make_environment "$python"
  fi
  echo "setup: installing${extras:+ with extras $extras} (minutes the first time)"
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  install_listed "$@" || {
    echo "setup: constraints.txt does not cover this platform; pip resolves now, which takes minutes more"
    install_resolved
  }
  check_imports
  for extra in "" "$@"; do echo "$wanted ${extra:-base}" >> "$installed"; done
else
  check_imports
fi
