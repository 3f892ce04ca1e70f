"""Measured values that the next run of an evaluation takes over."""

import json
from pathlib import Path
from typing import Any

from fairseq_resynth.data.files import write_text


class Cache:
    """Values by key, one JSON line each, appended as they come; a torn last line is dropped.

    Args:
        path: the file; it is made on the first value.
    """

    def __init__(self, path: Path):
        self.path = path
        self.values: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._read()

    def _read(self) -> None:
        whole, _, torn = self.path.read_bytes().decode(errors="replace").rpartition("\n")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                key, values = json.loads(line)
                self.values[key] = dict(values)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.path}:{number}: damaged, found {line[:40]!r}. Delete the file to measure anew."
                ) from error
        if torn:
            write_text(self.path, whole + "\n" if whole else "")

    def add(self, key: str, values: dict[str, Any]) -> None:
        """Keeps a value, on disk before it returns."""
        self.values[key] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([key, values]) + "\n")
