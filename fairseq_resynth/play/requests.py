"""What the page asks for, checked: a browser's JSON to controls and a voice. No text of it is a path."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fairseq_resynth.conversion import prosody
from fairseq_resynth.conversion.convert import Controls
from fairseq_resynth.data.streams import StreamSpec

_TEXTS = ("source", "voice", "reference", "speaker", "pitch", "durations", "style")


@dataclass(frozen=True)
class Wish:
    """One conversion.

    Attributes:
        source: key of an uploaded recording.
        controls: pitch, rate, durations and style.
        voice: a speaker of the model, or None.
        reference: key of an uploaded recording of somebody, or None.
        speaker: who speaks in the source, if the model knows the voice.
    """

    source: str
    controls: Controls = field(default_factory=Controls)
    voice: str | None = None
    reference: str | None = None
    speaker: str | None = None


def parse_wish(body: bytes, streams: StreamSpec) -> Wish:
    """Reads `{"source": key, "voice": name | "reference": key, "pitch": "shift=+3st", "rate": 0.8, …}`.

    Args:
        body: JSON; `speaker`, `durations` (`predicted`) and `style` may be there too; null: not given.
        streams: of the model.

    Raises:
        ValueError: not such JSON, an unknown voice, or a control that is impossible or names a file.
    """
    values = _parse_object(body)
    unknown = sorted(set(values) - {*_TEXTS, "rate"})
    if unknown:
        raise ValueError(
            f"the request has {', '.join(unknown)}, expected some of {', '.join(_TEXTS)}, rate"
        )
    texts = {name: _text(values, name) for name in _TEXTS}
    if texts["source"] is None:
        raise ValueError("give a recording first: record one, or choose a file")
    if texts["voice"] and texts["reference"]:
        raise ValueError("give a voice of the model or a recording of somebody, one of the two")
    for name in ("voice", "speaker"):
        if texts[name] is not None:
            streams.speaker_index(texts[name])
    controls = _controls(texts, _rate(values.get("rate", 1)))
    return Wish(
        texts["source"], controls, texts["voice"], texts["reference"], texts["speaker"]
    )  # fmt: skip


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"the request is a JSON {type(values).__name__}, expected an object")
    return values


def _text(values: dict[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > 200):
        raise ValueError(f"{name} is {str(value)[:80]!r}, expected text of up to 200 characters")
    return value or None


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"rate is {str(value)[:80]!r}, expected a number")
    return float(value)


def _controls(texts: dict[str, str | None], rate: float) -> Controls:
    pitch, durations = texts["pitch"], texts["durations"]
    if pitch is not None and prosody.parse_pitch(pitch)[0] == "from":
        raise ValueError(
            f"pitch {pitch!r}: the page opens no files; expected shift, scale or flatten"
        )
    if durations not in (None, "predicted"):
        raise ValueError(f"durations {durations!r}: expected predicted")
    return Controls(pitch, rate, durations, texts["style"])


def in_words(wish: Wish, name_of: Callable[[str], str]) -> str:
    """Describes a conversion in a line: `boris, shift=+3st, rate 0.8`.

    Args:
        wish: the conversion.
        name_of: a reference's key to what it is called.
    """
    voice = wish.voice or (name_of(wish.reference) if wish.reference else wish.speaker)
    controls = wish.controls
    rate = f"rate {controls.rate:g}" if controls.rate != 1 else None
    durations = f"durations {controls.durations}" if controls.durations else None
    parts = (voice, controls.pitch, rate, durations, controls.style)
    return ", ".join(part for part in parts if part) or "resynthesised"
