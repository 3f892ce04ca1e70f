"""Checked requests of the page: a browser's JSON becomes controls and a voice. No text in it is a path."""

import json
from dataclasses import dataclass, field
from typing import Any

from fairseq_resynth.conversion import prosody
from fairseq_resynth.conversion.convert import Controls
from fairseq_resynth.data.streams import StreamSpec

_TEXTS = ("source", "voice", "reference", "speaker", "pitch", "durations", "style")


@dataclass(frozen=True)
class ConversionRequest:
    """One conversion that the page asks for; recordings are named by the keys of their uploads.

    Attributes:
        source: the recording.
        controls: pitch, rate, durations and style.
        voice: a speaker of the model, or None.
        reference: a recording of the target speaker, or None.
        speaker: who speaks in the source, if the model knows the voice.
    """

    source: str
    controls: Controls = field(default_factory=Controls)
    voice: str | None = None
    reference: str | None = None
    speaker: str | None = None

    @property
    def title(self) -> str:
        """The conversion in one line: `boris, shift=+3st, rate 0.8`."""
        reference = self.reference and f"voice of {self.reference[:8]}"
        voice = self.voice or reference or self.speaker
        controls = self.controls
        rate = f"rate {controls.rate:g}" if controls.rate != 1 else None
        durations = f"durations {controls.durations}" if controls.durations else None
        parts = (voice, controls.pitch, rate, durations, controls.style)
        return ", ".join(part for part in parts if part) or "resynthesized"


def parse_request(body: bytes, streams: StreamSpec) -> ConversionRequest:
    """Reads `{"source": key, "voice": name | "reference": key, "pitch": "shift=+3st", "rate": 0.8, …}`.

    `speaker`, `durations` (`predicted`) and `style` are optional; null is the same as absent. Raises
    ValueError for other JSON, an unknown voice, or a control that is impossible or names a file.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"the request is a JSON {type(values).__name__}, expected an object")
    unknown = sorted(set(values) - {*_TEXTS, "rate"})
    if unknown:
        raise ValueError(
            f"the request has {', '.join(unknown)}, expected some of {', '.join(_TEXTS)}, rate"
        )
    texts = {name: _text(values, name) for name in _TEXTS}
    if texts["source"] is None:
        raise ValueError("give a recording first: record one, or choose a file")
    if texts["voice"] and texts["reference"]:
        raise ValueError(
            "give either a voice of the model or a recording of somebody, one of the two"
        )
    for name in ("voice", "speaker"):
        if texts[name] is not None:
            streams.speaker_index(texts[name])
    controls = _controls(texts, values.get("rate", 1))
    return ConversionRequest(
        texts["source"], controls, texts["voice"], texts["reference"], texts["speaker"]
    )


def _text(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > 200):
        raise ValueError(f"{name} is {str(value)[:80]!r}, expected text of up to 200 characters")
    return value or None


def _controls(texts: dict[str, str | None], rate: Any) -> Controls:
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise ValueError(f"rate is {str(rate)[:80]!r}, expected a number")
    pitch, durations = texts["pitch"], texts["durations"]
    if pitch is not None and prosody.parse_pitch(pitch)[0] == "from":
        raise ValueError(
            f"pitch {pitch!r}: the page opens no files; expected shift, scale or flatten"
        )
    if durations not in (None, "predicted"):
        raise ValueError(f"durations {durations!r}: expected predicted")
    return Controls(pitch, float(rate), durations, texts["style"])
