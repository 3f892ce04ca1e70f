"""Audio that an evaluation makes itself, with what is known of each file: bits and times."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_resynth.data.storage.files import write_json
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.evaluation.runs.pairing import Collection

Figures = dict[str, float]


class GeneratedFiles:
    """A folder of WAV files made from sources, of which those that are current are reused.

    Args:
        folder: where the files are.
        sources: name -> file that it is made from.
        maker: JSON types, what makes them.

    Attributes:
        todo: names that are still to be made.
    """

    def __init__(self, folder: Path, sources: Mapping[str, Path], maker: Any):
        self.folder, self._record = folder, Record(folder)
        self._keys: dict[str, str] = {}
        self._figures: dict[str, Figures] = {}
        for name, source in sources.items():
            # A source that does not exist is named when it is read.
            self._keys[name] = self._record.key(maker, source if source.is_file() else None)
            figures = self._record.find(f"{name}.wav", self._keys[name])
            if figures is not None:
                self._figures[name] = figures
        self.todo = [name for name in sources if name not in self._figures]

    def path(self, name: str) -> Path:
        """The path of a WAV file."""
        return self.folder / f"{name}.wav"

    def keep(self, name: str, figures: Figures) -> None:
        """Records a file that was written."""
        self._record.add(f"{name}.wav", self._keys[name], figures)
        self._figures[name] = figures

    def finish(self) -> Collection:
        """Writes the figures to `given.json` and returns the files; also to be called on failure."""
        self._record.flush()
        write_json(self.folder / "given.json", self._figures)
        files = {name: self.path(name) for name in sorted(self._figures)}
        return Collection(files, {}, self.folder, dict(self._figures))


def rate_figures(num_bytes: int, seconds: float, payload: int | None = None) -> Figures:
    """Bits per second of a file, and of its packets without the container if known."""
    figures = {"bits_per_second": 8 * num_bytes / seconds}
    if payload is not None:
        figures["payload_bits_per_second"] = 8 * payload / seconds
    return figures
