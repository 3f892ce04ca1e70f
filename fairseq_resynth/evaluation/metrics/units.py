"""Metrics of the units themselves, of the bits and of the time that they took."""

import functools
from typing import Any

import numpy as np

from fairseq_resynth.data.storage.files import file_hash
from fairseq_resynth.evaluation.metrics.metric import Column, Metric, Recording, Utterance
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.measures.text import edit_distance

ENCODERS = ("kmeans", "content_vqvae")  # weights in a bundle that make units


@functools.cache
def _load_bundle(folder: str, content_checkpoint: str | None) -> Any:
    from fairseq_resynth.resynthesizer import Resynthesizer

    return Resynthesizer.from_pretrained(folder, content_checkpoint)


class Units(Metric):
    """Whether the same units come out again when the generated speech is quantised."""

    def __init__(self) -> None:
        super().__init__(
            name="units",
            columns=(
                Column("unit_error_rate", "unit errors %", weight="num_units", digits=1, scale=100),
            ),
            predicts="edits between the units of the generated and of the reference speech, per "
            "unit of the reference; the share of the codebook that is used, and its perplexity",
            needs=("reference",),
            settings={"bundle": None, "content_checkpoint": None},
        )

    def missing(self) -> str:
        """See `Metric`: units need the encoder of a bundle.

        Raises:
            FileNotFoundError, ValueError: there is no such bundle.
        """
        if not self.settings["bundle"]:
            return "needs the unit encoder: give --bundle FOLDER"
        from fairseq_resynth.inference.bundle import load_bundle

        load_bundle(find_bundle(self.settings["bundle"]))
        try:
            loaded = self._bundle()
        except (FileNotFoundError, ValueError) as error:
            return f"the bundle's unit encoder cannot be loaded: {error}"
        return (
            ""
            if loaded.encoder
            else "the bundle makes no units: `resynth export --kmeans` adds that"
        )

    def version(self) -> str:
        """See `Metric`; names the encoder's weights, so that another bundle is measured anew."""
        if not self.settings["bundle"]:
            return "1"
        folder = find_bundle(self.settings["bundle"])
        weights = [folder / f"{name}.safetensors" for name in ENCODERS]
        hashes = [file_hash(path) for path in weights if path.is_file()]
        return f"1, units by the bundle's encoder {' '.join(hashes)}".strip()

    def _bundle(self) -> Any:
        return _load_bundle(self.settings["bundle"], self.settings["content_checkpoint"])

    def _units(self, recording: Recording) -> np.ndarray:
        return recording.derive("units", self._bundle().encoder.encode)

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; also how often each code occurs in the generated speech."""
        reference, generated = self._units(utterance.reference), self._units(utterance.generated)
        errors = edit_distance(reference.tolist(), generated.tolist())
        counts = np.bincount(generated, minlength=self._bundle().streams.num_units)
        rate = errors / len(reference) if len(reference) else float("nan")
        values = {"unit_error_rate": rate, "num_units": len(reference)}
        return {**values, "unit_counts": counts.tolist()}

    def pooled(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Returns `codebook_use` in [0, 1] and `codebook_perplexity`, from 1 to the codes there are."""
        counted = [row["unit_counts"] for row in rows if "unit_counts" in row]
        if not counted:
            return {}
        counts = np.sum(counted, axis=0)
        shares = counts[counts > 0] / counts.sum()
        perplexity = float(np.exp(-np.sum(shares * np.log(shares))))
        return {"codebook_use": float(np.mean(counts > 0)), "codebook_perplexity": perplexity}


class Rate(Metric):
    """Bits a second of the actual file, header and all; of a codec's packets alone beside it.

    Its values come with the files, from `given.json` in the generated folder.
    """

    def __init__(self) -> None:
        super().__init__(
            name="rate",
            columns=(
                Column("bits_per_second", "bit/s", weight="given_seconds", digits=0),
                Column("payload_bits_per_second", "bit/s, no header", "lower", "given_seconds", 0),
            ),
            predicts="nothing: bytes of the file * 8 / seconds of the recording",
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`: nothing is measured."""
        return {}


class Speed(Metric):
    """Real-time factor of each stage: seconds of work a second of speech, on this machine."""

    def __init__(self) -> None:
        super().__init__(
            name="speed",
            columns=(
                Column("rtf_units", "RTF units", weight="given_seconds"),
                Column("rtf_f0", "RTF F0", weight="given_seconds"),
                Column("rtf_encode", "RTF encode", weight="given_seconds"),
                Column("rtf_decode", "RTF decode", weight="given_seconds"),
            ),
            predicts="nothing: wall-clock seconds / seconds of the recording",
        )

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`: nothing is measured."""
        return {}
