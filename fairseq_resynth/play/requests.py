"""What the page asks for: JSON of a browser as controls and a voice. No text in it is a path."""

import json
import math
from dataclasses import dataclass
from typing import Any

from fairseq_resynth.constants import TOKENS
from fairseq_resynth.conversion import prosody
from fairseq_resynth.conversion.convert import Controls
from fairseq_resynth.data.streams import StreamSpec

_TEXTS = ("source", "voice", "reference", "speaker", "pitch", "durations", *TOKENS)


@dataclass(frozen=True)
class ConversionRequest:
    """One conversion that the page asks for; recordings are named by the keys of their uploads."""

    source: str
    controls: Controls
    voice: str | None  # a speaker of the model
    reference: str | None  # a recording of the target speaker
    speaker: str | None  # who speaks in the source

    @property
    def title(self) -> str:
        """The conversion in one line: `boris, shift=+3st, rate 0.8`."""
        reference = self.reference and f"voice of {self.reference[:8]}"
        voice = self.voice or reference or self.speaker
        controls = self.controls
        rate = f"rate {controls.rate:g}" if controls.rate != 1 else None
        durations = f"durations {controls.durations}" if controls.durations else None
        parts = (voice, controls.pitch, rate, durations, *controls.tokens.values())
        return ", ".join(part for part in parts if part) or "resynthesized"


def parse_request(body: bytes, streams: StreamSpec) -> ConversionRequest:
    """Reads `{"source": key, "voice": name | "reference": key, "pitch": "shift=+3st", "rate": 0.8, …}`.

    `speaker`, `durations` (`predicted`), `style` and `language` are optional; null is the same as absent.
    Raises ValueError for other JSON, an unknown voice, or a control that is impossible or names a file.
    """
    return request_of(json_object(body, "the request"), streams)


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """Reads a JSON object. Raises ValueError, which calls it `what`, for anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{what} is a JSON {type(values).__name__}, expected an object")
    return values


def request_of(values: dict[str, Any], streams: StreamSpec) -> ConversionRequest:
    """The request of a JSON object, see `parse_request`."""
    unknown = sorted(set(values) - {*_TEXTS, "rate"})
    if unknown:
        raise ValueError(
            f"the request has {', '.join(unknown)[:80]!r}, expected some of {', '.join(_TEXTS)}, rate"
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
    rate = values.get("rate")
    controls = _controls(texts, 1 if rate is None else rate)
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
    rate = math.inf if abs(rate) > 1e9 else float(rate)  # no float is as large as some integers
    pitch, durations = texts["pitch"], texts["durations"]
    if pitch is not None and prosody.parse_pitch(pitch)[0] == "from":
        raise ValueError(
            f"pitch {pitch!r}: the page opens no files; expected shift, scale or flatten"
        )
    if durations not in (None, "predicted"):
        raise ValueError(f"durations {durations!r}: expected predicted")
    tokens = {token: name for token in TOKENS if (name := texts[token])}
    return Controls(pitch, rate, durations, tokens)
