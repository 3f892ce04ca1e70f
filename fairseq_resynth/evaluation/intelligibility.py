"""Word and character error rates of what a recogniser hears."""

from typing import Any

from fairseq_resynth.evaluation.metric import (
    Column,
    Metric,
    Recording,
    Utterance,
    package_version,
)
from fairseq_resynth.evaluation.recognisers import (
    MODULES,
    load_recogniser,
    missing_recogniser,
    parse_recogniser,
)
from fairseq_resynth.evaluation.text import NORMALISER, error_rates


class Intelligibility(Metric):
    """WER and CER against the transcript; dWER and dCER against what is heard in the reference.

    Word errors / words of all utterances together, as NIST's sclite and the paper's Tables 1 and 2.
    The paper recognised with wav2vec 2.0; figures of other recognisers compare with each other
    only.
    """

    def __init__(self) -> None:
        super().__init__(
            name="wer",
            columns=(
                Column("wer", "WER %", weight="words", digits=1, scale=100),
                Column("cer", "CER %", weight="characters", digits=1, scale=100),
                Column("dwer", "dWER %", weight="reference_words", digits=1, scale=100),
                Column("dcer", "dCER %", weight="reference_characters", digits=1, scale=100),
            ),
            predicts="words lost, as a recogniser hears them; against transcripts (WER, CER) and "
            "against the same recogniser on the reference (dWER, dCER)",
            settings={"recogniser": "pocketsphinx", "language": None},
            judges_reference=True,
        )

    def missing(self) -> str:
        """See `Metric`."""
        return missing_recogniser(self.settings["recogniser"])

    def version(self) -> str:
        """See `Metric`."""
        recogniser = self.settings["recogniser"]
        module = MODULES[parse_recogniser(recogniser)[0]]
        return f"{recogniser} ({module} {package_version(module)}), normaliser {NORMALISER}"

    def prepare(self) -> None:
        """See `Metric`: loads the recogniser."""
        load_recogniser(self.settings["recogniser"], self.settings["language"])

    def _hear(self, recording: Recording) -> str:
        recogniser = load_recogniser(self.settings["recogniser"], self.settings["language"])
        return recording.derive("heard", recogniser.transcribe)

    def measure(self, utterance: Utterance) -> dict[str, Any]:
        """See `Metric`; also what was heard."""
        heard = self._hear(utterance.generated)
        result: dict[str, Any] = {"heard": heard}
        if utterance.transcript is not None:
            result |= {"transcript": utterance.transcript}
            result |= error_rates(utterance.transcript, heard)
            result["notes"] = [] if result["words"] else ["empty transcript"]
        if utterance.reference is not None:
            rates = error_rates(self._hear(utterance.reference), heard)
            result |= {"dwer": rates["wer"], "dcer": rates["cer"]}
            result |= {"reference_" + key: rates[key] for key in ("words", "characters")}
        return result
