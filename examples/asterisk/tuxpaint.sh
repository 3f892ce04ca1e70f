#!/usr/bin/env bash
# Downloads the voices of Tux Paint (161 MB, GPL-2) and writes them to OUT/tuxpaint/tuxpaint_<language>/*.ogg, with
# OUT/tuxpaint/transcripts.tsv.
#   usage: bash examples/asterisk/tuxpaint.sh OUT
# This uses `apt-get download` and `dpkg -x`: nothing is installed, and no root is needed. On systems without them, unpack
# the Debian package tuxpaint-stamps-default into OUT/tuxpaint_unpacked and run this again.
set -euo pipefail
out=${1:?usage: bash examples/asterisk/tuxpaint.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
mkdir -p "$out/debs"
out=$(cd "$out" && pwd)
if [ ! -d "$out/tuxpaint_unpacked/usr/share/tuxpaint/stamps" ]; then
  if ! command -v apt-get > /dev/null || ! command -v dpkg > /dev/null; then
    echo "tuxpaint.sh: this system has no apt-get: unpack Debian's tuxpaint-stamps-default (161 MB) into $out/tuxpaint_unpacked, then run this again." >&2
    exit 1
  fi
  ls "$out"/debs/tuxpaint-stamps-default_*.deb > /dev/null 2>&1 ||
    (cd "$out/debs" && apt-get download tuxpaint-stamps-default) ||
    { echo "tuxpaint.sh: apt-get does not find tuxpaint-stamps-default (apt-get update as root may help)" >&2; exit 1; }
  dpkg -x "$out"/debs/tuxpaint-stamps-default_*.deb "$out/tuxpaint_unpacked"
fi
"$python" "$here/tuxpaint.py" "$out/tuxpaint_unpacked" "$out/tuxpaint"
