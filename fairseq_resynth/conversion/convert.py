"""Speech in another voice, melody or rhythm: one of them changes and the others stay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fairseq_resynth.conversion import prosody
from fairseq_resynth.conversion.references import Voice, find_voice
from fairseq_resynth.data.pitch.statistics import F0Entry, SpeakerStatistics
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.inference.system import SpeechSystem

Target = str | Path | Sequence[str | Path] | Voice


@dataclass(frozen=True)
class Controls:
    """Changes in addition to the voice. Raises ValueError for impossible values and contradictions."""

    pitch: str | None = None  # shift=+3st, scale=1.2, flatten or from=OTHER.wav; None: no change
    rate: float = 1.0  # of speaking, 0.25 to 4
    # predicted by the model for the target, or from=OTHER.wav, a recording of the same words
    durations: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)  # named tokens: {"style": "sad"}
    duration_speaker: str | None = None  # whose durations are predicted instead of the target's

    def __post_init__(self) -> None:
        prosody.check_rate(self.rate)
        if self.pitch is not None:
            prosody.parse_pitch(self.pitch)
        if self.durations in (None, "predicted"):
            return
        if not re.fullmatch("from=.+", self.durations):
            raise ValueError(
                f"--durations {self.durations!r}: expected predicted or from=OTHER.wav"
            )
        if self.rate != 1 or self.duration_speaker is not None:
            option = "--rate" if self.rate != 1 else "--duration-speaker"
            raise ValueError(
                f"{option} and --durations {self.durations} contradict each other: give one of them"
            )

    @property
    def predicts(self) -> bool:
        """Whether the model predicts how long each unit lasts."""
        return self.durations == "predicted" or self.duration_speaker is not None


@dataclass(frozen=True)
class Converted:
    """The result: (T,) float32 at 16 kHz, its streams, the requested (N,) F0 in Hz (None for a model
    without pitch), its voice, and sentences for the user.
    """

    wav: np.ndarray
    speech: Utterance
    f0: np.ndarray | None
    voice: Voice
    notes: tuple[str, ...] = ()


def convert(
    system: SpeechSystem,
    wav: np.ndarray,
    target: Target | None,
    source: str | None = None,
    controls: Controls | None = None,
) -> Converted:
    """Converts (T,) float at 16 kHz to another voice, melody or rhythm.

    `target` is a speaker of the model, recordings of anybody, or a voice, and None for the `source`, who is
    known to the model and speaks. Raises FileNotFoundError or ValueError for an unknown voice, a bad
    reference or control, or a model without the stream that a control needs.
    """
    controls = controls or Controls()
    check_controls(system, controls)
    voice = choose_voice(system, target, source)
    units, hop = system.units(wav), system.streams.unit_hop
    positions = _positions(system, units, controls, voice)
    notes, f0, pitch = [], None, {}
    if controls.predicts and not system.bundle.generator.durations_need_speaker:
        if len(system.streams.speakers) > 1 or system.streams.speaker_dim:
            notes.append("the predicted durations are the same for every speaker of this model")
    if system.pitch.exists:
        f0, entry, pitch_notes = _target_f0(system, wav, units, voice, source, controls)
        notes += pitch_notes
    if positions is not None:
        f0 = None if f0 is None else prosody.warp_f0(f0, positions, hop)
        units = units[prosody.nearest_indices(positions, len(units))]
    if f0 is not None:
        pitch = system.pitch.encode(f0, entry, len(units))
    if voice.measured:
        notes.append(
            f"{voice.name}: F0 {voice.entry['f0_mean']:.0f} ± {voice.entry['f0_std']:.0f} Hz, "
            f"from {voice.entry['num_voiced']} voiced frames"
        )
    speech = Utterance(
        units, speaker=voice.speaker, num_samples=len(units) * hop, tokens=controls.tokens, **pitch
    )
    return Converted(system.decode_all([speech])[0], speech, f0, voice, tuple(notes))


def check_controls(system: SpeechSystem, controls: Controls) -> None:
    """Raises ValueError if a control needs a stream or a predictor that the model does not have."""
    if controls.pitch is not None and not system.pitch.exists:
        raise ValueError("--pitch needs a model with a pitch stream, and this bundle has none.")
    system.streams.check_tokens(controls.tokens)
    if not controls.predicts:
        return
    generator = system.bundle.generator
    if generator.duration_predictor is None:
        raise ValueError(
            "--durations predicted needs a model trained with --duration-predictor, and this bundle has none."
        )
    if controls.duration_speaker is not None:
        system.streams.speaker_index(controls.duration_speaker)
        if not generator.durations_need_speaker:
            raise ValueError(
                "--duration-speaker needs a model whose predicted durations depend on the speaker, and this "
                "bundle's do not: train with --duration-predictor --duration-condition speaker."
            )


def choose_voice(system: SpeechSystem, target: Target | None, source: str | None) -> Voice:
    """The voice of the result: the target, else the source, else the model's only voice. Raises
    FileNotFoundError or ValueError if none of these is given, or `find_voice` finds no such voice."""
    if isinstance(target, Voice):
        return target
    if target is None and source is None:
        names = system.streams.speakers
        if len(names) > 1 or system.streams.speaker_dim:
            raise ValueError(f"give a target: one of {', '.join(names)}.")
        return Voice(names[0] if names else "", names[0] if names else None, None)
    return find_voice(source if target is None else target, system.streams, system.statistics)


def _target_f0(
    system: SpeechSystem,
    wav: np.ndarray,
    units: np.ndarray,
    voice: Voice,
    source: str | None,
    controls: Controls,
) -> tuple[np.ndarray, F0Entry, list[str]]:
    """The (N,) F0 in Hz for the target voice in the rhythm of the source, its F0 statistics, and notes."""
    f0 = system.pitch.extract(wav)
    notes = [] if f0.any() else ["no voiced frame was found: is it silence, or not speech?"]
    own = system.pitch.entry(f0, source)
    entry = voice.entry or (system.statistics and system.statistics.overall) or own
    kind, path = prosody.parse_pitch(controls.pitch) if controls.pitch else ("", "")
    if kind == "from":
        # The melody of the other recording, moved to the target voice, on the voiced frames of this one.
        other = system.waveform(str(path))
        melody = system.pitch.extract(other)
        if not (melody > 0).any():
            raise ValueError(f"--pitch from={path}: no frame of that recording is voiced")
        other_entry = SpeakerStatistics.from_frames([("", melody)]).overall
        positions = prosody.align_units(units, system.units(other))
        f0 = prosody.transfer_f0(f0, melody, positions, system.streams.unit_hop)
        f0 = prosody.convert_f0(f0, other_entry, entry)
    else:
        f0 = prosody.apply_pitch(prosody.convert_f0(f0, own, entry), controls.pitch)
    if controls.pitch and (warning := prosody.range_warning(f0, entry)):
        notes.append(warning)
    return f0, entry, notes


def _positions(
    system: SpeechSystem, units: np.ndarray, controls: Controls, voice: Voice
) -> np.ndarray | None:
    """The position in the units of each unit of the result; None if the rhythm stays."""
    if controls.predicts:
        speaker = controls.duration_speaker or voice.speaker
        expanded = system.decoder.expand([units], controls.rate, speaker=speaker)[0]
        return prosody.duration_positions(units, expanded)
    if controls.durations is not None:
        others = system.units(system.waveform(controls.durations[5:]))
        return prosody.align_units(others, units)
    if controls.rate == 1:
        return None
    return prosody.rate_positions(len(units), controls.rate)
