"""F0 codes of a data folder, in any representation: what `resynth quantize-f0` does."""

import hashlib
import json
from pathlib import Path
from typing import Any

from fairseq_resynth.data.manifest import Manifest, read_manifest, read_names
from fairseq_resynth.data.pitch.extraction import F0Cache
from fairseq_resynth.data.pitch.representations import ContinuousF0, F0Representation, QuantileF0
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.files import write_json
from fairseq_resynth.data.storage.parts import LinesPart, RowsOutcome
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.text_columns import Names
from fairseq_resynth.data.storage.workers import progress
from fairseq_resynth.data.units import format_integers


def _inputs(data: Path, split: str) -> tuple[Manifest, F0Cache, SpeakerStatistics, Names]:
    manifest = read_manifest(data / f"{split}.tsv")
    statistics = SpeakerStatistics.load(data / "speakers.json")
    names = read_names(data / f"{split}.speaker", len(manifest))
    return manifest, F0Cache(data, split, manifest), statistics, names


def write_f0_codes(
    data_dir: str | Path,
    split: str,
    representation: F0Representation,
    description: dict[str, Any],
    shard: Shard | None = None,
) -> RowsOutcome:
    """Writes `{split}.f0`, or this shard's part of it, and `f0_codes.json`, the representation's description.
    Raises FileNotFoundError or ValueError if F0 or speakers are missing or do not fit the manifest."""
    data, record = Path(data_dir), Record(data_dir)
    manifest, cache, statistics, names = _inputs(data, split)
    made_by = {key: value for key, value in description.items() if key != "checkpoint"}
    read = (f"f0/{split}.npy", "speakers.json", f"{split}.speaker")
    settings = {**made_by, "inputs": [record.content(data / name) for name in read]}
    part = LinesPart(
        record, f"{split}.f0", manifest, shard or Shard(), settings,
        {"f0_codes.json": description}, from_recordings=False,
    )  # fmt: skip
    if (outcome := part.finished()) is not None:
        return outcome
    outcome = RowsOutcome(rows=len(part.rows))
    with part:
        outcome.reused = part.keep_lines()
        todo = part.rows[outcome.reused :]
        for row in progress(todo, len(part.rows), f"quantize-f0 {split}", outcome.reused):
            codes = representation.encode(cache[row], statistics.entry(names[row]))
            part.append({row: format_integers(codes)})
            outcome.written += 1
        outcome.joined = part.close({})
    return outcome


def fit_quantiles(data_dir: str | Path, bins: int, hop: int) -> tuple[QuantileF0, dict[str, Any]]:
    """Fits quantile bins of log-F0 on train; returns them and what `f0_codes.json` says of them. `hop` is
    samples per code. Raises FileNotFoundError if there is no F0, and ValueError if there are too few
    different values for so many bins."""
    _, cache, statistics, names = _inputs(Path(data_dir), "train")
    rows = ((cache[row], statistics.entry(name)) for row, name in enumerate(names))
    description = QuantileF0.fit(rows, bins, hop).describe()
    text = json.dumps(description, sort_keys=True)
    description["quantizer_hash"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    # The rounded numbers, from which whoever reads the description builds the bins.
    return QuantileF0(description["edges"], description["centres"], hop), description


def write_continuous(data_dir: str | Path, splits: list[str]) -> dict[str, Any]:
    """Says in `f0_codes.json` that the generator takes F0 itself, which all splits must have."""
    data, description = Path(data_dir), ContinuousF0.describe()
    SpeakerStatistics.load(data / "speakers.json")
    for split in splits:
        F0Cache(data, split, read_manifest(data / f"{split}.tsv"))
    write_json(data / "f0_codes.json", description)
    return description
