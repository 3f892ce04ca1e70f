"""F0 codes of a data folder, in any representation: what `resynth quantize-f0` does."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fairseq_resynth.data.manifest import Manifest, read_manifest, read_names
from fairseq_resynth.data.pitch.extraction import F0Cache
from fairseq_resynth.data.pitch.representations import ContinuousF0, F0Representation, QuantileF0
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.files import file_hash, read_json, write_json
from fairseq_resynth.data.storage.shards import (
    Shard,
    close_part,
    join_parts,
    open_part,
    rows_hash,
    whole_lines,
)
from fairseq_resynth.data.storage.workers import progress
from fairseq_resynth.data.units import format_integers


class F0CodeWriter:
    """Writes `{split}.f0` of a data folder.

    Args:
        data_dir: with `f0/` and `speakers.json`.
        representation: that gives codes.
        description: of it, for `f0_codes.json`.

    Raises:
        FileNotFoundError, ValueError: no usable `speakers.json`.
    """

    def __init__(
        self, data_dir: str | Path, representation: F0Representation, description: dict[str, Any]
    ):
        self.data, self.representation = Path(data_dir), representation
        self.statistics = SpeakerStatistics.load(self.data / "speakers.json")
        self.description = description

    def _key(self, manifest: Manifest, cache: F0Cache) -> dict[str, Any]:
        speakers = file_hash(self.data / "speakers.json")
        made_by = {key: self.description[key] for key in self.description if key != "checkpoint"}
        return {
            "rows": rows_hash(manifest),
            **made_by,
            "f0": cache.description,
            "speakers": speakers,
        }

    def write(self, split: str, shard: Shard | None = None) -> dict[str, Any]:
        """Quantises a split, or this shard's rows of it, and joins the parts if it was the last.

        Returns:
            {"rows", "reused", "joined"}.

        Raises:
            FileNotFoundError, ValueError: F0 or speakers are missing or do not fit the manifest.
        """
        shard = shard or Shard()
        manifest = read_manifest(self.data / f"{split}.tsv")
        cache = F0Cache(self.data, split, manifest)
        target, key = self.data / f"{split}.f0", self._key(manifest, cache)
        rows, digest = shard.rows(len(manifest)), _digest(key)
        if self._is_finished(target, digest):
            return {"rows": len(rows), "reused": len(rows), "joined": True}
        part = open_part(target, shard, key)
        done = whole_lines(part)
        with part.open("a") as stream:
            lines = self._lines(manifest, cache, rows[done:])
            for line in progress(lines, len(rows), f"quantize-f0 {split}", done):
                stream.write(line)
        close_part(target, shard, key, self._beside(target, digest))
        return {"rows": len(rows), "reused": done, "joined": join_parts(target, shard.count, key)}

    def _lines(self, manifest: Manifest, cache: F0Cache, rows: range) -> Iterator[str]:
        names = read_names(manifest.source.with_suffix(".speaker"), len(manifest))
        for row in rows:
            entry = self.statistics.entry(names[row])
            yield format_integers(self.representation.encode(cache[row], entry)) + "\n"

    def _beside(self, target: Path, digest: str) -> dict[str, Any]:
        return {"f0_codes.json": {**self.description, "rows": {target.stem: digest}}}

    def _is_finished(self, target: Path, digest: str) -> bool:
        path = target.with_name("f0_codes.json")
        found = read_json(path) if path.is_file() else {}
        same = all(found.get(key) == value for key, value in self.description.items())
        return same and target.is_file() and found.get("rows", {}).get(target.stem) == digest


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def fit_quantiles(data_dir: str | Path, bins: int, hop: int) -> tuple[QuantileF0, dict[str, Any]]:
    """Fits quantile bins of log-F0 on train.

    Args:
        data_dir: with `f0/` and `speakers.json`.
        bins: how many.
        hop: samples a code, those of a unit.

    Returns:
        (the bins, what `f0_codes.json` says of them).

    Raises:
        FileNotFoundError, ValueError: no F0, or too few different values for so many bins.
    """
    data = Path(data_dir)
    manifest = read_manifest(data / "train.tsv")
    statistics = SpeakerStatistics.load(data / "speakers.json")
    names = read_names(data / "train.speaker", len(manifest))
    cache = F0Cache(data, "train", manifest)
    rows = ((cache[row], statistics.entry(name)) for row, name in enumerate(names))
    description = QuantileF0.fit(rows, bins, hop).describe()
    description["quantizer_hash"] = _digest(description)
    # of the rounded numbers, as whoever reads the description builds them
    fitted = QuantileF0(description["edges"], description["centres"], hop)
    return fitted, description


def write_continuous(data_dir: str | Path, splits: Sequence[str]) -> dict[str, Any]:
    """Says in `f0_codes.json` that the generator takes F0 itself; the cache of `resynth f0` is the data.

    Raises:
        FileNotFoundError, ValueError: a split has no F0.
    """
    data = Path(data_dir)
    SpeakerStatistics.load(data / "speakers.json")
    for split in splits:
        F0Cache(data, split, read_manifest(data / f"{split}.tsv"))
    description = ContinuousF0.describe()
    write_json(data / "f0_codes.json", description)
    return description
