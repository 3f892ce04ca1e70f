"""Metrics of the units themselves, of bits, and of the time that coding took."""

import functools
from typing import Any

import numpy as np

from fairseq_resynth.data.storage.files import file_hash
from fairseq_resynth.evaluation.metrics.metric import Column, Comparison, Metric, Recording
from fairseq_resynth.inference.bundle import load_bundle
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.measures.text import edit_distance
from fairseq_resynth.resynthesizer import Resynthesizer

ENCODERS = ("kmeans", "content_vqvae")  # weights in a bundle that make units
_load = functools.cache(Resynthesizer.from_pretrained)


class Units(Metric):
    """Unit error rate of the generated speech, encoded again, against the units of the reference."""

    name = "units"
    columns = (Column("unit_error_rate", "unit errors %", weight="num_units", digits=1, scale=100),)
    predicts = (
        "edits between the units of the generated and of the reference speech, per unit of the "
        "reference; the share of the codebook that is used, and its perplexity"
    )
    needs = ("reference",)
    settings = {"bundle": None, "content_checkpoint": None}

    def missing(self) -> str:
        """What the bundle lacks, or ""; FileNotFoundError or ValueError if it does not exist."""
        if not self.settings["bundle"]:
            return "needs the unit encoder: give --bundle FOLDER"
        load_bundle(find_bundle(self.settings["bundle"]))
        try:
            encoder = self._bundle().encoder
        except (FileNotFoundError, ValueError) as error:
            return f"the bundle's unit encoder cannot be loaded: {error}"
        return "" if encoder else "the bundle makes no units: `resynth export --kmeans` adds that"

    def version(self) -> str:
        """Names the encoder's weights, so that values of another bundle are not reused."""
        if not self.settings["bundle"]:
            return "1"
        folder = find_bundle(self.settings["bundle"])
        weights = [folder / f"{name}.safetensors" for name in ENCODERS]
        hashes = [file_hash(path) for path in weights if path.is_file()]
        return f"1, units by the bundle's encoder {' '.join(hashes)}".strip()

    def _bundle(self) -> Resynthesizer:
        return _load(self.settings["bundle"], self.settings["content_checkpoint"], self.device)

    def _units(self, recording: Recording) -> np.ndarray:
        return recording.derive("units", self._bundle().encoder.encode)

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The error rate, and how often each unit occurs in the generated speech."""
        reference, generated = self._units(comparison.reference), self._units(comparison.generated)
        errors = edit_distance(reference.tolist(), generated.tolist())
        counts = np.bincount(generated, minlength=self._bundle().streams.num_units)
        return {
            "unit_error_rate": errors / len(reference) if len(reference) else float("nan"),
            "num_units": len(reference),
            "unit_counts": counts.tolist(),
        }

    def pooled(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """`codebook_use` in [0, 1], and `codebook_perplexity` from 1 to the size of the codebook."""
        counted = [row["unit_counts"] for row in rows if "unit_counts" in row]
        if not counted:
            return {}
        counts = np.sum(counted, axis=0)
        shares = counts[counts > 0] / counts.sum()
        perplexity = float(np.exp(-np.sum(shares * np.log(shares))))
        return {"codebook_use": float(np.mean(counts > 0)), "codebook_perplexity": perplexity}


class _Given(Metric):
    """A metric whose values are known from generation: from `given.json` in the generated folder."""

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        return {}


class Rate(_Given):
    """Bit/s of the actual file with its header, of a codec's packets alone, and of codes of fixed length."""

    name = "rate"
    columns = (
        Column("bits_per_second", "bit/s", weight="given_seconds", digits=0),
        Column("payload_bits_per_second", "bit/s, no header", "lower", "given_seconds", 0),
        Column("code_bits_per_second", "bit/s, fixed codes", "lower", "given_seconds", 0),
    )
    predicts = (
        "nothing: bytes of the file * 8 / seconds of the recording; codes of fixed length take "
        "log2(symbols) bits each"
    )


class Speed(_Given):
    """Real-time factor of each stage: seconds of work per second of speech, on this machine."""

    name = "speed"
    columns = tuple(
        Column(f"rtf_{stage.lower()}", f"RTF {stage}", weight="given_seconds")
        for stage in ("units", "F0", "encode", "decode")
    )
    predicts = "nothing: wall-clock seconds / seconds of the recording"
