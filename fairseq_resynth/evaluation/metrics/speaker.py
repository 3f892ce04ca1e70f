"""Speaker similarity to enrolled speakers, and the equal error rate of the paper."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fairseq_resynth.encoders.speaker import MODULES, SpeakerEncoder, load_encoder, parse_encoder
from fairseq_resynth.evaluation.metrics.metric import Column, Comparison, Metric, Recording, Row
from fairseq_resynth.evaluation.metrics.packages import missing_packages, package_version
from fairseq_resynth.evaluation.runs.pairing import Trials, read_folder, read_trials
from fairseq_resynth.measures.statistics import equal_error_rate


def enroll_folder(folder: Path, encoder: SpeakerEncoder) -> dict[str, np.ndarray]:
    """The sum of the embeddings of each speaker's files, `FOLDER/SPEAKER/*.wav`. Raises FileNotFoundError
    without audio, and ValueError for a file not in a speaker's folder."""
    collection = read_folder(folder)
    sums: dict[str, Any] = defaultdict(float)
    for name, path in tqdm(collection.files.items(), unit="file", desc="enroll", disable=None):
        if name not in collection.speakers:
            raise ValueError(f"{path}: expected enrollment files in {folder}/SPEAKER/")
        try:
            sums[collection.speakers[name]] += encoder.embed(Recording(path).wav)
        except ValueError as error:
            raise ValueError(f"--enroll: {path} cannot enroll its speaker: {error}") from error
    return dict(sums)


class Speaker(Metric):
    """Cosine similarity, and the equal error rate over trials of utterances against enrolled speakers.

    As in the paper's Section 4.2, each generated utterance is scored against each enrolled speaker;
    the score of the speaker that it should sound like is a target trial, the others are not.
    `trials` restricts this to a list. Speakers are enrolled by the mean embedding of the files in
    `enroll`, or else of the references, without the reference that the utterance was made from.
    """

    name = "speaker"
    columns = (
        Column("speaker_similarity", "speaker sim.", "higher"),
        Column("reference_similarity", "sim. to reference", ""),
    )
    predicts = (
        "same speaker or not: cosine with the enrolled target speaker and with the reference "
        "itself (the source voice, in conversion), and the equal error rate"
    )
    needs = ("reference",)
    settings = {"speaker_encoder": "resemblyzer", "enroll": None, "trials": None}
    measures_reference = True

    _enrolled: dict[str, np.ndarray] | None = None  # the sums of `enroll`
    _trials: Trials | None = None
    _prepared = False

    def missing(self) -> str:
        module = MODULES[parse_encoder(self.settings["speaker_encoder"])[0]]
        return missing_packages([module], module + " 'setuptools<81'" * (module == "resemblyzer"))

    def version(self) -> str:
        encoder = self.settings["speaker_encoder"]
        module = MODULES[parse_encoder(encoder)[0]]
        return f"{encoder} ({module} {package_version(module)})"

    def _encoder(self) -> SpeakerEncoder:
        return load_encoder(self.settings["speaker_encoder"], self.device)

    def prepare(self) -> None:
        """Loads the encoder, enrolls the speakers of `enroll` and reads `trials`."""
        encoder, folder = self._encoder(), self.settings["enroll"]
        self._enrolled = enroll_folder(Path(folder), encoder) if folder else None
        self._trials = read_trials(self.settings["trials"]) if self.settings["trials"] else None
        self._prepared = True

    def measure(self, comparison: Comparison) -> dict[str, Any]:
        """The similarity, and both embeddings, which `finish` needs; undefined without enough speech."""
        encoder = self._encoder()
        try:
            reference = comparison.reference.derive("embedding", encoder.embed)
            generated = comparison.generated.derive("embedding", encoder.embed)
        except ValueError as error:
            return {"reference_similarity": float("nan"), "notes": [str(error)]}
        return {
            "reference_similarity": float(reference @ generated),
            "embedding": np.round(generated, 5).tolist(),
            "reference_embedding": np.round(reference, 5).tolist(),
        }

    def finish(self, rows: list[Row]) -> None:
        """Scores each row against the enrolled speakers, all of them or those of its trials."""
        measured = [row for row in rows if "embedding" in row]
        if not self._prepared:
            self.prepare()
        sums = _enroll_references(measured) if self._enrolled is None else self._enrolled
        for row in measured:
            enrolled = _without_own_reference(sums, row) if self._enrolled is None else sums
            scores = {who: _cosine(vector, row["embedding"]) for who, vector in enrolled.items()}
            row["speaker_similarity"] = scores.get(row["speaker"], float("nan"))
            wanted = scores if self._trials is None else self._trials.get(row["name"], ())
            row["speaker_scores"] = {who: scores[who] for who in scores if who in wanted}

    def pooled(self, rows: list[Row]) -> dict[str, float]:
        """`eer` over all trials, NaN with fewer than two enrolled speakers."""
        targets, others = [], []
        for row in rows:
            for who, score in row.get("speaker_scores", {}).items():
                (targets if who == row["speaker"] else others).append(score)
        return {"eer": equal_error_rate(targets, others)}


def _cosine(first: np.ndarray, second: Iterable[float]) -> float:
    second = np.asarray(second)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _enroll_references(rows: list[Row]) -> dict[str, np.ndarray]:
    sums: dict[str, Any] = defaultdict(float)
    for row in {row["reference_name"]: row for row in rows}.values():
        if row["source_speaker"]:
            sums[row["source_speaker"]] += np.array(row["reference_embedding"])
    return dict(sums)


def _without_own_reference(sums: dict[str, np.ndarray], row: Row) -> dict[str, np.ndarray]:
    """The enrollment without the row's own reference; a speaker with no other reference drops out."""
    speaker, rest = row["source_speaker"], dict(sums)
    if speaker in rest:
        rest[speaker] = rest[speaker] - np.array(row["reference_embedding"])
        if np.linalg.norm(rest[speaker]) < 1e-6:
            del rest[speaker]
    return rest
