"""Filling the F0 cache and `speakers.json`: what `resynth f0` does.

The cache of a split, `f0/{split}.npy`, appears only once F0 of all its rows is known. A row that failed is
tried again by the next run.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.constants import F0_HOP
from fairseq_resynth.data.audio.files import read_audio
from fairseq_resynth.data.manifest import Manifest, check_samples, read_manifest, read_names
from fairseq_resynth.data.pitch.extraction import (
    METHOD_MODULES,
    F0Cache,
    F0Options,
    compile_method,
    extract_f0,
    num_frames,
    require_method,
)
from fairseq_resynth.data.pitch.statistics import SpeakerStatistics
from fairseq_resynth.data.storage.messages import first_names
from fairseq_resynth.data.storage.parts import ArrayPart, Item, RowsOutcome
from fairseq_resynth.data.storage.resume import Record
from fairseq_resynth.data.storage.shards import Shard
from fairseq_resynth.data.storage.text_columns import Names


@dataclass
class F0Outcome(RowsOutcome):
    """What a run did with a split; `unvoiced` are the paths of rows whose F0 has no voiced frame."""

    unvoiced: list[str] = field(default_factory=list)


def _extract_row(item: Item, options: F0Options) -> np.ndarray | str:
    """The F0 of a row, or the reason why it could not be found."""
    try:
        wav = read_audio(item.path)
        check_samples(len(wav), item.samples)
        return extract_f0(wav, **asdict(options))
    except (ValueError, OSError) as error:
        return str(error)


def f0_key(manifest: Manifest, options: F0Options) -> dict[str, Any]:
    """What `f0/{split}.json` says of a cache."""
    return {"rows": manifest.rows_hash(), **asdict(options), "f0_hop": F0_HOP}


def build_f0(
    data_dir: str | Path,
    split: str,
    options: F0Options,
    shard: Shard | None = None,
    workers: int = 1,
    accept_unvoiced: bool = False,
) -> F0Outcome:
    """Fills the cache of a split, or this shard's part of it. With `accept_unvoiced`, rows that failed get F0
    of 0 and are named all the same. Raises FileNotFoundError or ValueError if the manifest is missing or
    malformed, or a package that the method needs."""
    manifest = read_manifest(Path(data_dir) / f"{split}.tsv")
    lengths, key = num_frames(manifest.num_samples), f0_key(manifest, options)
    settings = {name: value for name, value in key.items() if name != "rows"}
    part = ArrayPart(
        lengths, (int(lengths.sum()),), Record(data_dir), f"f0/{split}.npy", manifest,
        shard or Shard(), settings, {f"{split}.json": key},
    )  # fmt: skip
    if (finished := part.finished()) is not None:
        read = F0Cache(data_dir, split, manifest).__getitem__
        return F0Outcome(**vars(finished), unvoiced=_unvoiced(part, read, finished))
    require_method(options.method)
    if workers > 1:
        compile_method(options)
    extract, preload = partial(_extract_row, options=options), METHOD_MODULES[options.method]
    substitute = 0.0 if accept_unvoiced else None
    with part:
        outcome = part.fill(extract, workers, f"f0 {split}", substitute, preload)
        return F0Outcome(**vars(outcome), unvoiced=_unvoiced(part, part.read, outcome))


def _unvoiced(
    part: ArrayPart, read: Callable[[int], np.ndarray], outcome: RowsOutcome
) -> list[str]:
    paths = ((row, part.manifest.paths[row]) for row in part.rows)
    return [path for row, path in paths if path not in outcome.failed and not np.any(read(row) > 0)]


def _speakers(manifest: Manifest) -> Names:
    return read_names(manifest.source.with_suffix(".speaker"), len(manifest))


def write_speaker_statistics(data_dir: str | Path, splits: Iterable[str]) -> SpeakerStatistics:
    """Writes `speakers.json` from the F0 of train, whose speakers must include those of all `splits`. Raises
    FileNotFoundError if there is no F0 of train or a `.speaker` file is missing, and ValueError if a speaker
    is not in train or no frame of train is voiced."""
    data = Path(data_dir)
    train = read_manifest(data / "train.tsv")
    rows = zip(_speakers(train), F0Cache(data, "train", train), strict=True)
    statistics = SpeakerStatistics.from_frames(rows)
    for split in splits:
        names = _speakers(read_manifest(data / f"{split}.tsv")).table
        if unknown := sorted(set(names) - set(statistics.speakers)):
            raise ValueError(
                f"{data / split}.speaker names {first_names(unknown)}, not in train.speaker: without "
                "training speech there are no F0 statistics. Split again with `resynth manifest`."
            )
    statistics.save(data / "speakers.json")
    return statistics
