"""Audio that an evaluation makes itself, with what is known of each file: bits and times."""

from collections.abc import Mapping
from pathlib import Path

from fairseq_resynth.data.storage.files import file_hash, read_json, write_json
from fairseq_resynth.evaluation.runs.pairing import Collection

Figures = dict[str, float]


class MadeFiles:
    """A folder of wavs made from sources; those of unchanged sources are reused.

    `given.json` holds the figures, `sources.json` what each file was made from.

    Args:
        folder: where the wavs are.
        sources: name -> file that it is made from.
        maker: what makes them; another maker's files are made again.

    Attributes:
        todo: names that are still to be made.
    """

    def __init__(self, folder: Path, sources: Mapping[str, Path], maker: str):
        self.folder = folder
        self._sources = {
            name: f"{maker} {file_hash(path)}" if path.is_file() else ""
            for name, path in sources.items()
        }
        known = self._read("sources.json")
        kept = {name for name in sources if known.get(name) == self._sources[name] != ""}
        kept = {name for name in kept if self.path(name).is_file()}
        given = self._read("given.json")
        self._given: dict[str, Figures] = {name: given[name] for name in kept if name in given}
        self.todo = [name for name in sources if name not in self._given]

    def _read(self, name: str) -> dict:
        return read_json(self.folder / name) if (self.folder / name).is_file() else {}

    def path(self, name: str) -> Path:
        """Returns where a wav goes."""
        return self.folder / f"{name}.wav"

    def keep(self, name: str, figures: Figures) -> None:
        """Records a file that was written."""
        self._given[name] = figures

    def finish(self) -> Collection:
        """Writes the records and returns the files that there are; also to be called on failure."""
        write_json(self.folder / "given.json", self._given)
        write_json(self.folder / "sources.json", {n: self._sources[n] for n in self._given})
        files = {name: self.path(name) for name in sorted(self._given)}
        return Collection(files, {}, self.folder, dict(self._given))


def rate_figures(num_bytes: int, seconds: float, payload: int | None = None) -> Figures:
    """Returns bits a second of a file, and of its packets without the container if known."""
    figures = {"bits_per_second": 8 * num_bytes / seconds}
    if payload is not None:
        figures["payload_bits_per_second"] = 8 * payload / seconds
    return figures
