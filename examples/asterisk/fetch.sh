#!/usr/bin/env bash
# Gets Asterisk's core sounds (five voices, 55 MB) and lays their speech out as OUT/g722/<voice>/**.g722.
#   bash examples/asterisk/fetch.sh OUT
# On Debian and Ubuntu by `apt-get download` and `dpkg -x`: nothing is installed and no root is needed.
# Elsewhere: it prints what to download and where to unpack it; run it again then.
set -euo pipefail

out=${1:?usage: fetch.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
mkdir -p "$out/unpacked" "$out/debs"
out=$(cd "$out" && pwd)

by_hand() {
  cat >&2 <<TEXT
fetch.sh: $1
Download these five archives of Asterisk's own site and unpack each into a folder of its own, then run this again:
TEXT
  for pair in english:en spanish:es french:fr italian:it russian:ru; do
    name=asterisk-core-sounds-${pair#*:}-g722-current.tar.gz
    echo "  https://downloads.asterisk.org/pub/telephony/sounds/$name  ->  $out/unpacked/${pair%:*}/" >&2
  done
  exit 1
}

count() { find "$out/unpacked" -name vm-whichbox.g722 | wc -l; }

if [ "$(count)" -lt 5 ]; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || by_hand "this system has no apt-get"
  for language in en es fr it ru; do
    package=asterisk-core-sounds-$language-g722
    ls "$out/debs/$package"_*.deb >/dev/null 2>&1 ||
      (cd "$out/debs" && apt-get download "$package") ||
      by_hand "apt-get found no $package (apt-get update as root may help)"
    dpkg -x "$out/debs/$package"_*.deb "$out/unpacked"
  done
fi
"$python" "$here/prompts.py" "$out/unpacked" "$out/g722"
