"""Phone alignments: tab-separated lines, NIST's CTM, Praat's TextGrid."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Phone:
    """One interval of an alignment, in seconds."""

    start: float
    end: float
    label: str


Alignment = dict[str, list[Phone]]


def read_alignment(path: str | Path) -> Alignment:
    """Reads a phone alignment: one .tsv or .ctm file, or a folder of them and of .TextGrid files.

    `.tsv`: `name<TAB>start<TAB>end<TAB>phone` in seconds. `.ctm` (NIST): `name channel start duration phone`.
    `.TextGrid` (Praat's long text form, as the Montreal Forced Aligner writes it): the tier called phones, or
    else the last interval tier; the name is the file's path below the folder. Empty labels are left out.

    Raises:
        FileNotFoundError: no such file, or a folder without one.
        ValueError: a malformed line, with its number; or another suffix.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    files = (
        [path]
        if path.is_file()
        else sorted(file for file in path.rglob("*") if file.suffix in _READERS)
    )
    if not files:
        raise FileNotFoundError(f"{path} has no .tsv, .ctm or .TextGrid file")
    alignment: Alignment = {}
    for file in files:
        if file.suffix not in _READERS:
            raise ValueError(f"{file} is no alignment: expected .tsv, .ctm or .TextGrid")
        root = path if path.is_dir() else path.parent
        name = str(file.relative_to(root).with_suffix(""))
        for key, phone in _READERS[file.suffix](file, name):
            if phone.label:
                alignment.setdefault(key, []).append(phone)
    return {key: sorted(phones, key=lambda phone: phone.start) for key, phones in alignment.items()}


def _phone(start: str, end: str, label: str, where: str) -> Phone:
    try:
        phone = Phone(float(start), float(end), label.strip())
    except ValueError as error:
        raise ValueError(f"{where}: expected times in seconds: {error}") from error
    if not 0 <= phone.start <= phone.end:
        raise ValueError(f"{where}: the interval {phone.start} to {phone.end} does not run forward")
    return phone


def _read_tsv(file: Path, name: str) -> Iterator[tuple[str, Phone]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 4:
            raise ValueError(
                f"{file}:{number}: expected `name<TAB>start<TAB>end<TAB>phone`, found {line[:80]!r}"
            )
        yield fields[0], _phone(*fields[1:], f"{file}:{number}")


def _read_ctm(file: Path, name: str) -> Iterator[tuple[str, Phone]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        where = f"{file}:{number}"
        if len(fields) < 5:
            raise ValueError(
                f"{where}: expected `name channel start duration phone`, found {line[:80]!r}"
            )
        duration = _phone("0", fields[3], fields[4], where).end
        start = _phone(fields[2], "inf", fields[4], where).start
        yield fields[0], Phone(start, start + duration, fields[4])


_INTERVAL = re.compile(r'xmin = ([\d.eE+-]+)\s+xmax = ([\d.eE+-]+)\s+text = "((?:[^"]|"")*)"')
_TIER = re.compile(
    r'class = "IntervalTier"\s+name = "((?:[^"]|"")*)"(.*?)(?=item \[\d+\]|\Z)', re.DOTALL
)


def _read_textgrid(file: Path, name: str) -> Iterator[tuple[str, Phone]]:
    content = file.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8-sig"
    tiers = dict(_TIER.findall(content.decode(encoding)))
    if not tiers:
        raise ValueError(f"{file} has no interval tier in Praat's long text form")
    tier = tiers.get("phones", list(tiers.values())[-1])
    for start, end, label in _INTERVAL.findall(tier):
        yield name, _phone(start, end, label.replace('""', '"'), str(file))


_READERS = {".tsv": _read_tsv, ".ctm": _read_ctm, ".TextGrid": _read_textgrid}
