#!/usr/bin/env bash
# Downloads Asterisk's core sounds (five voices, 55 MB) and writes their speech to OUT/g722/<voice>/**.g722.
#   usage: bash examples/asterisk/fetch.sh OUT
# On Debian and Ubuntu this uses `apt-get download` and `dpkg -x`: nothing is installed, and no root is needed. On other
# systems it prints what to download and where to unpack it; then run it again.
set -euo pipefail

out=${1:?usage: bash examples/asterisk/fetch.sh OUT}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
mkdir -p "$out/unpacked" "$out/debs"
out=$(cd "$out" && pwd)

by_hand() {
  cat >&2 <<TEXT
fetch.sh: $1
Download these five archives from Asterisk's own site, unpack each into the given folder, then run this again:
TEXT
  for pair in english:en spanish:es french:fr italian:it russian:ru; do
    name=asterisk-core-sounds-${pair#*:}-g722-current.tar.gz
    echo "  https://downloads.asterisk.org/pub/telephony/sounds/$name  ->  $out/unpacked/${pair%:*}/" >&2
  done
  exit 1
}

count() { find "$out/unpacked" -name vm-whichbox.g722 | wc -l; }

if [ "$(count)" -lt 5 ]; then
  if ! command -v apt-get > /dev/null || ! command -v dpkg > /dev/null; then by_hand "this system has no apt-get"; fi
  for language in en es fr it ru; do
    package=asterisk-core-sounds-$language-g722
    ls "$out/debs/$package"_*.deb >/dev/null 2>&1 ||
      (cd "$out/debs" && apt-get download "$package") ||
      by_hand "apt-get does not find $package (apt-get update as root may help)"
    dpkg -x "$out/debs/$package"_*.deb "$out/unpacked"
  done
fi
"$python" "$here/prompts.py" "$out/unpacked" "$out/g722"
