"""speech-resynthesis' F0 statistics: a pickle of numpy scalars, read without running anything in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_resynth.data.speakers import SpeakerStatistics
from fairseq_resynth.interop.checkpoints import refusals


def numpy_scalars() -> list[Any]:
    """Returns what numpy's scalars are pickled as, in its first and second major version."""
    scalar = np._core.multiarray.scalar
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")]
    return [np.dtype, *dtypes, *[(scalar, name) for name in names]]


def read_f0_statistics(path: str | Path) -> dict[Any, Any]:
    """Reads `f0_stats.pth`.

    Returns:
        {"f0_mean", "f0_std"}, or those by speaker's index.

    Raises:
        FileNotFoundError: no such file.
        ValueError: refused (the class in it is named), or of another form.
    """
    import torch

    path, what = Path(path), "F0 statistics ({'f0_mean', 'f0_std'} or those by speaker)"
    with refusals(path, what, numpy_scalars()):
        found = torch.load(path, map_location="cpu", weights_only=True)
    try:
        if "f0_mean" in found:
            return _entry(found)
        return {key: _entry(value) for key, value in found.items()}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not readable as {what}: {error}") from error


def _entry(values: dict[str, Any]) -> dict[str, float]:
    pair = {key: float(values[key]) for key in ("f0_mean", "f0_std")}
    if not all(np.isfinite(value) and value > 0 for value in pair.values()):
        raise ValueError(f"found {pair}, expected positive Hz")
    return {**pair, "num_voiced": 0}


def statistics_by_name(
    path: str | Path, speakers: Sequence[str], listed: Sequence[str] | None = None
) -> SpeakerStatistics:
    """Gives each speaker of a model the entry that the original would use.

    Args:
        path: of the statistics.
        speakers: of the model, in the order of its table.
        listed: speakers that the statistics' indices stand for, when it is another list.

    Raises:
        FileNotFoundError, ValueError: see `read_f0_statistics`; or made for another list of speakers.
    """
    found = read_f0_statistics(path)
    if "f0_mean" in found:
        return SpeakerStatistics({name: dict(found) for name in speakers}, found)
    if listed is not None:
        if len(listed) != len(found):
            raise ValueError(f"{path} has {len(found)} speakers, {len(listed)} names were given.")
        found = {listed[key]: entry for key, entry in found.items()}
    by_name = all(isinstance(key, str) for key in found)
    named = not all(name == str(row) for row, name in enumerate(speakers))
    if not by_name and named and len(found) != len(speakers):
        raise ValueError(
            f"{path} has {len(found)} speakers by index, and the model's list {len(speakers)} names: they "
            "were made for another list, and indices would read other people's statistics. Give the "
            "names of that list, --f0-stats-speakers, or make speakers.json with `resynth f0`."
        )
    keys = {name: name if by_name else row for row, name in enumerate(speakers)}
    entries = {name: found[key] for name, key in keys.items() if key in found}
    if not entries:
        raise ValueError(f"{path} has no entry for any of the model's speakers.")
    overall = {
        key: float(np.mean([e[key] for e in entries.values()])) for key in ("f0_mean", "f0_std")
    }
    return SpeakerStatistics(entries, {**overall, "num_voiced": 0})
