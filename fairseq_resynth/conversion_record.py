"""Which conversion made which file, so that none is taken for another's and none is overwritten unasked."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fairseq_resynth.data.files import file_hash

RECORD = "conversion.jsonl"


class ConversionRecord:
    """A line a file in `conversion.jsonl`, added before the file is written; a name's last line counts.

    Args:
        outdir: of the wavs.
        settings: what they depend on beside their source, as JSON types.

    Raises:
        ValueError: a line that is no record, with its number.
    """

    def __init__(self, outdir: Path, settings: Mapping[str, Any]):
        self._path, self._outdir = outdir / RECORD, outdir
        text = json.dumps(settings, sort_keys=True)
        self._settings = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._made = dict(self._lines()) if self._path.is_file() else {}

    def _lines(self) -> Iterable[tuple[str, dict[str, str]]]:
        lines = self._path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                yield values["name"], values
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    return  # an interrupted run cut it short
                raise ValueError(f"{self._path}:{number}: no line of `resynth convert`") from error

    def out(self, name: str) -> Path:
        """Returns where the wav of that name goes."""
        return self._outdir / f"{name}.wav"

    def is_made(self, name: str, source: Path) -> bool:
        """Tells whether the wav is there, of these settings and of this source as it is now."""
        made = self._made.get(name, {})
        if not self.out(name).is_file() or made.get("settings") != self._settings:
            return False
        return made.get("source") == file_hash(source)

    def refuse(self, inputs: Mapping[str, Path], others: Iterable[Path], overwrite: bool) -> None:
        """Refuses to write over what is to be read, and over what something else has made.

        Args:
            inputs: name -> source of each wav to come.
            others: what is read beside them: references, melodies.
            overwrite: allows the second.

        Raises:
            ValueError: the first such file.
        """
        read = {path.resolve() for path in [*inputs.values(), *others]}
        for name, source in inputs.items():
            out = self.out(name)
            if out.resolve() in read:
                raise ValueError(f"{out} is read by this conversion: give another --outdir")
            if out.exists() and not overwrite and self._is_anothers(name, source):
                raise ValueError(
                    f"{out} is there, and not of these settings and this recording: give another --outdir, "
                    "or --overwrite"
                )

    def _is_anothers(self, name: str, source: Path) -> bool:
        made = self._made.get(name, {})
        same = made.get("settings") == self._settings
        return not (same and made.get("from") == str(source.resolve()))

    def begin(self, name: str, source: Path) -> None:
        """Removes what is there under that name, and says what comes."""
        self.out(name).unlink(missing_ok=True)
        line = {
            "name": name,
            "settings": self._settings,
            "from": str(source.resolve()),
            "source": file_hash(source),
        }
        self._made[name] = line
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
