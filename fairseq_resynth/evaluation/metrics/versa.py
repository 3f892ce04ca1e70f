"""VERSA (Shi et al., 2024), a collection of metrics that runs by itself: its input and its results.

`DIR/SYSTEM/wav.scp`, `reference.scp` and `text` hold lines of `key value`, one per utterance;
`DIR/SYSTEM/*.jsonl` are VERSA's results, one JSON object per line with the `key` of its utterance.
"""

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fairseq_resynth.data.audio.files import zip_range
from fairseq_resynth.data.storage.files import file_hash, text_lines, write_text
from fairseq_resynth.evaluation.metrics.metric import Column, Comparison, Metric
from fairseq_resynth.evaluation.runs.pairing import Pair

PREFIX = "versa_"  # of the columns, since VERSA computes some figures differently
LOWER = re.compile("mcd|rmse|_wer|_cer|error|distance|warpq|nomad|scoreq_ref|_wss|_cd$")
HIGHER = re.compile(
    "mos|pesq|stoi|visqol|nisqa|corr|s[in]r|sdr|sar|similar|bert|bleu|ssqa|scoreq_nr"
)
COUNT = re.compile(r"(.+_[wc]er)_(insert|delete|replace|equal)")


def write_lists(folder: Path, pairs: Iterable[Pair]) -> None:
    """Writes the lists of all systems, with absolute paths. Names are percent-encoded as in an address,
    since a key has no spaces. Utterances without words are not in `text`. Raises ValueError for a recording
    inside an archive, which VERSA cannot read."""
    lists: dict[Path, list[tuple[str, Any]]] = {}
    for pair in pairs:
        key, system = quote(pair.name), folder / quote(pair.system, safe=":=+")
        for name, path in (("wav.scp", pair.generated), ("reference.scp", pair.reference)):
            if zip_range(path):
                raise ValueError(f"--versa: VERSA cannot read {path}; unpack the archive")
            lists.setdefault(system / name, []).append((key, path.absolute()))
        if pair.transcript:
            lists.setdefault(system / "text", []).append((key, pair.transcript))
    for path, lines in lists.items():
        write_text(path, "".join(f"{key} {value}\n" for key, value in sorted(lines)))


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one utterance by column; counts of edits become an error rate and its words."""
    numbers = {
        name: math.nan if value is None else float(value)
        for name, value in result.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }
    figures, counts = {}, dict[str, dict[str, float]]()
    for name, value in numbers.items():
        if match := COUNT.fullmatch(name):
            counts.setdefault(match[1], {})[match[2]] = value
        else:
            figures[PREFIX + name] = value
    for name, found in counts.items():
        total = sum(found.get(kind, 0) for kind in ("delete", "replace", "equal"))
        edits = sum(found.values()) - found.get("equal", 0)
        figures[PREFIX + name] = edits / total if total else math.nan
        figures[f"{PREFIX}{name}_words"] = total
    return figures


def read_results(folder: Path) -> dict[Path, dict[str, float]]:
    """The figures of each audio file, from all results of all systems. Raises ValueError for a line that is
    no JSON object, or whose key is not in the system's wav.scp."""
    found: dict[Path, dict[str, float]] = {}
    for listed in sorted(folder.glob("*/wav.scp")):
        lines = text_lines(listed)
        paths = dict(line.split(" ", 1) for line in lines)
        for results in sorted(listed.parent.glob("*.jsonl")):
            for number, line in enumerate(text_lines(results), 1):
                try:
                    result = json.loads(line)
                    path, figures = paths[result["key"]], _figures(result)
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                    raise ValueError(
                        f"{results}:{number}: expected a JSON object with the `key` of an utterance in "
                        f"{listed}, found {line[:60]!r}; run VERSA on that list again"
                    ) from error
                found.setdefault(Path(path), {}).update(figures)
    return found


class Versa(Metric):
    """What VERSA measured, read from its results."""

    name = "versa"
    predicts = (
        "see VERSA's list of metrics; it ran by itself, in the version and settings of its user"
    )
    settings = {"versa": None}
    measures_reference = True

    def _files(self) -> list[Path]:
        return sorted(Path(self.settings["versa"]).glob("*/*.jsonl"))

    def missing(self) -> str:
        """How to run VERSA, as long as it has no results; ValueError if the folder is a file."""
        folder = self.settings["versa"]
        if not folder:
            return "needs VERSA's results: give --versa DIR, which gets the lists to run it on"
        if Path(folder).is_file():
            raise ValueError(f"--versa {folder} is a file; give a folder")
        system = f"{folder}/SYSTEM"
        return (
            ""
            if self._files()
            else (
                f"no results yet: for each SYSTEM run python versa/bin/scorer.py --io soundfile --pred "
                f"{system}/wav.scp --gt {system}/reference.scp --text {system}/text --score_config YAML "
                f"--output_file {system}/result.jsonl, then this command again"
            )
        )

    def version(self) -> str:
        """Names the results by their hash, so that values of others are not reused."""
        hashes = [file_hash(path)[:8] for path in self._files()] if self.settings["versa"] else []
        return " ".join(["results", *hashes])

    @functools.cached_property
    def _results(self) -> dict[Path, dict[str, float]]:
        return read_results(Path(self.settings["versa"])) if self.settings["versa"] else {}

    @property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        """One per figure that some utterance has."""
        names = dict.fromkeys(name for figures in self._results.values() for name in figures)
        return tuple(_column(name, names) for name in names if name.removesuffix("_words") == name)

    def prepare(self) -> None:
        """Reads the results."""
        _ = self._results

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The figures of the file; undefined where VERSA has none, since it skips what is too short."""
        figures = self._results.get(comparison.generated.path.absolute())
        undefined = dict.fromkeys((column.name for column in self.columns), math.nan)
        notes = [] if figures else ["VERSA has no result"]
        return {**undefined, **(figures or {}), "notes": notes}


def _column(name: str, names: Mapping[str, Any]) -> Column:
    better = "lower" if LOWER.search(name) else "higher" if HIGHER.search(name) else ""
    label = "VERSA " + name.removeprefix(PREFIX)
    if f"{name}_words" in names:
        return Column(name, label + " %", "lower", f"{name}_words", 1, 100)
    return Column(name, label, better)
