"""Copy the spoken descriptions of Tux Paint, one folder per voice, with the text of each.

    python examples/asterisk/tuxpaint.py UNPACKED OUT [--languages fr ru ro ca be el da]

UNPACKED contains Debian's package tuxpaint-stamps-default, unpacked by `dpkg -x` (see tuxpaint.sh). OUT gets
`tuxpaint_<language>/*.ogg`, `transcripts.tsv` (name, text) and `dropped.tsv` (clips without a known text).
There is one voice per language with 16 to 21 minutes; GPL-2. Spanish is saturated and Bulgarian is noisy, so
they are not among the default languages; Lithuanian and Dutch have less than two minutes.
"""

import argparse
import shutil
import sys
from pathlib import Path

from fairseq_resynth.data.storage.files import write_text

LANGUAGES = ("fr", "ru", "ro", "ca", "be", "el", "da")


def spoken_text(description: Path, language: str) -> str | None:
    """The text of the clip in a language, from the line `LL.utf8=…`; None if that line is missing."""
    if not description.is_file():
        return None
    for line in description.read_text(encoding="utf-8", errors="replace").splitlines():
        key, equals, text = line.partition("=")
        if equals and key == f"{language}.utf8" and text.strip():
            return text.strip()
    return None


def copy_voice(stamps: Path, out: Path, language: str) -> tuple[list[str], list[str]]:
    """Copies the clips of one voice; returns the rows of transcripts and of clips left out."""
    said, dropped = [], []
    for clip in sorted(stamps.rglob(f"*_desc_{language}.ogg")):
        base = clip.name.removesuffix(f"_desc_{language}.ogg")
        name = "_".join([*clip.parent.relative_to(stamps).parts, base])
        text = spoken_text(clip.with_name(f"{base}.txt"), language)
        if text is None:
            dropped.append(f"{clip.relative_to(stamps)}\tno text in {base}.txt")
            continue
        target = out / f"tuxpaint_{language}" / f"{name}.ogg"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(clip, target)
        said.append(f"tuxpaint_{language}/{name}\t{text}")
    return said, dropped


def main() -> int:
    """Copies every voice and prints its number of clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("unpacked", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--languages", nargs="+", default=LANGUAGES)
    args = parser.parse_args()
    stamps = args.unpacked / "usr" / "share" / "tuxpaint" / "stamps"
    if not stamps.is_dir():
        print(f"{stamps} does not exist: run bash examples/asterisk/tuxpaint.sh", file=sys.stderr)
        return 2
    said: list[str] = []
    dropped: list[str] = []
    for language in args.languages:
        rows, left_out = copy_voice(stamps, args.out, language)
        print(f"tuxpaint_{language}: {len(rows)} clips, {len(left_out)} without a text")
        said += rows
        dropped += left_out
    write_text(args.out / "transcripts.tsv", "".join(f"{row}\n" for row in said))
    write_text(args.out / "dropped.tsv", "".join(f"{row}\n" for row in dropped))
    return 0 if said else 1


if __name__ == "__main__":
    sys.exit(main())
