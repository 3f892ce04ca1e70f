"""Whose voice it is: similarity to enrolled speakers and the equal error rate of the paper."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fairseq_resynth.encoders.speaker import MODULES, SpeakerEncoder, load_encoder, parse_encoder
from fairseq_resynth.evaluation.metrics.metric import (
    Column,
    Metric,
    Recording,
    Utterance,
    importable,
    install_hint,
    package_version,
)
from fairseq_resynth.evaluation.runs.pairing import read_folder
from fairseq_resynth.measures.statistics import equal_error_rate


def enrol_folder(folder: Path, encoder: SpeakerEncoder) -> dict[str, np.ndarray]:
    """Returns the sum of embeddings of each speaker of `FOLDER/SPEAKER/*.wav`.

    Raises:
        FileNotFoundError, ValueError: no audio, or a file outside of a speaker's folder.
    """
    collection = read_folder(folder)
    sums: dict[str, Any] = defaultdict(float)
    for name, path in tqdm(collection.files.items(), unit="file", desc="enrol", disable=None):
        if name not in collection.speakers:
            raise ValueError(f"{path}: expected enrolment files in {folder}/SPEAKER/")
        try:
            sums[collection.speakers[name]] += encoder.embed(Recording(path).wav)
        except ValueError as error:
            raise ValueError(f"--enrol: {path} cannot enrol its speaker: {error}") from error
    return dict(sums)


class Speaker(Metric):
    """Cosine similarity, and the EER of every utterance against every enrolled speaker.

    As in the paper's Section 4.2: each generated utterance is scored against each enrolled speaker;
    its target's score is a target trial, the others are not; `trials` limits this to a
    list. Speakers are enrolled by the mean
    embedding of `enrol`'s files, else of the references, without the one that is being converted
    or resynthesised itself.
    """

    def __init__(self) -> None:
        super().__init__(
            name="speaker",
            columns=(
                Column("speaker_similarity", "speaker sim.", "higher"),
                Column("reference_similarity", "sim. to reference", ""),
            ),
            predicts="same speaker or not: cosine with the enrolled target speaker and with the "
            "reference itself (the source voice, in conversion), and the equal error rate",
            needs=("reference",),
            settings={"speaker_encoder": "resemblyzer", "enrol": None, "trials": None},
            judges_reference=True,
        )
        self._enrolled: dict[str, np.ndarray] | None = None
        self._trials: Trials | None = None
        self._prepared = False

    def missing(self) -> str:
        """See `Metric`."""
        module = MODULES[parse_encoder(self.settings["speaker_encoder"])[0]]
        if importable(module):
            return ""
        return install_hint([module], module + " 'setuptools<81'" * (module == "resemblyzer"))

    def version(self) -> str:
        """See `Metric`."""
        encoder = self.settings["speaker_encoder"]
        module = MODULES[parse_encoder(encoder)[0]]
        return f"{encoder} ({module} {package_version(module)})"

    def prepare(self) -> None:
        """See `Metric`: loads the encoder, enrols the speakers of `enrol`, reads `trials`."""
        encoder, folder = load_encoder(self.settings["speaker_encoder"]), self.settings["enrol"]
        self._enrolled = enrol_folder(Path(folder), encoder) if folder else None
        self._trials = read_trials(self.settings["trials"]) if self.settings["trials"] else None
        self._prepared = True

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; also both embeddings, which `finish` needs. Undefined without a voice."""
        encoder = load_encoder(self.settings["speaker_encoder"])
        try:
            reference = utterance.reference.derive("embedding", encoder.embed)
            generated = utterance.generated.derive("embedding", encoder.embed)
        except ValueError as error:
            return {"reference_similarity": float("nan"), "notes": [str(error)]}
        return {
            "reference_similarity": float(reference @ generated),
            "embedding": np.round(generated, 5).tolist(),
            "reference_embedding": np.round(reference, 5).tolist(),
        }

    def finish(self, rows: list[dict[str, Any]]) -> None:
        """Scores each row against the enrolled speakers, all of them or those of its trials."""
        measured = [row for row in rows if "embedding" in row]
        if not self._prepared:
            self.prepare()
        sums = _enrol_references(measured) if self._enrolled is None else self._enrolled
        for row in measured:
            enrolled = _without(sums, row) if self._enrolled is None else sums
            scores = {who: _cosine(vector, row["embedding"]) for who, vector in enrolled.items()}
            row["speaker_similarity"] = scores.get(row["speaker"], float("nan"))
            wanted = scores if self._trials is None else self._trials.get(row["name"], ())
            row["speaker_scores"] = {who: scores[who] for who in scores if who in wanted}

    def pooled(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """Returns `eer` over all trials, NaN with fewer than two enrolled speakers."""
        scored = [row for row in rows if row.get("speaker_scores")]
        targets = [row["speaker_scores"].get(row["speaker"]) for row in scored]
        others = [
            score
            for row in scored
            for who, score in row["speaker_scores"].items()
            if who != row["speaker"]
        ]
        return {"eer": equal_error_rate([score for score in targets if score is not None], others)}


def _cosine(first: np.ndarray, second: Iterable[float]) -> float:
    second = np.asarray(second)
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def _references(rows: list[dict[str, Any]]) -> dict[str, tuple[str, np.ndarray]]:
    return {
        row["reference_name"]: (row["source_speaker"], np.array(row["reference_embedding"]))
        for row in rows
    }


def _enrol_references(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    sums: dict[str, Any] = defaultdict(float)
    for speaker, embedding in _references(rows).values():
        if speaker:
            sums[speaker] = sums[speaker] + embedding
    return dict(sums)


def _without(sums: dict[str, np.ndarray], row: dict[str, Any]) -> dict[str, np.ndarray]:
    """The enrolment without the row's own reference; a speaker who had only that one drops out."""
    speaker, rest = row["source_speaker"], dict(sums)
    if speaker in rest:
        rest[speaker] = rest[speaker] - np.array(row["reference_embedding"])
        if np.linalg.norm(rest[speaker]) < 1e-6:
            del rest[speaker]
    return rest


Trials = dict[str, set[str]]


def read_trials(path: str | Path) -> Trials:
    """Reads `utterance<TAB>speaker` lines; an utterance has a line for each speaker it is scored against.

    Whether a trial is a target trial follows from the voice that the utterance should have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text, no line, a malformed line, or a trial twice, with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give --trials a file of utterance<TAB>speaker"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    trials: Trials = {}
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line.split("\t")]
        if fields == [""]:
            continue
        if len(fields) != 2 or not all(fields):
            raise ValueError(
                f"{path}:{number}: expected utterance<TAB>speaker, found {line[:60]!r}"
            )
        speakers = trials.setdefault(fields[0], set())
        if fields[1] in speakers:
            raise ValueError(f"{path}:{number}: the trial of {line[:60]!r} is there already")
        speakers.add(fields[1])
    if not trials:
        raise ValueError(f"{path} has no trials, expected lines of utterance<TAB>speaker")
    return trials


def check_trials(
    trials: Mapping[str, Collection[str]], names: Collection[str], speakers: Collection[str]
) -> None:
    """Checks that a list is about what is measured.

    Args:
        trials: of `read_trials`.
        names: of the generated utterances.
        speakers: that can be enrolled.

    Raises:
        ValueError: an utterance or a speaker that there is not.
    """
    for what, listed, known in (
        ("utterances", trials, names),
        ("speakers", set().union(*trials.values()), speakers),
    ):
        unknown = sorted(set(listed) - set(known))
        if unknown:
            raise ValueError(
                f"--trials names {len(unknown)} {what} that there are not: {', '.join(unknown[:5])}; "
                f"expected such as {', '.join(sorted(known)[:5])}"
            )
