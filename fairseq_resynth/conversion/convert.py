"""Speech in another voice, melody or rhythm: one thing changes and the rest stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
    """What is to change beside the voice.

    Attributes:
        pitch: `shift=+3st`, `scale=1.2`, `flatten` or `from=OTHER.wav`; None: as it is.
        rate: of speaking, 0.25 to 4.
        durations: `predicted` by the model as the target speaks, or `from=OTHER.wav`, a recording of the
            same words; None: as they are.
        style: name of a speaking style; None for a model without.
        duration_speaker: a speaker of the model whose durations are predicted instead of the target's.
    """

    pitch: str | None = None
    rate: float = 1.0
    durations: str | None = None
    style: str | None = None
    duration_speaker: str | None = None

    def __post_init__(self) -> None:
        prosody.check_rate(self.rate)
        if self.pitch is not None:
            prosody.parse_pitch(self.pitch)
        if self.duration_speaker is not None and self.durations not in (None, "predicted"):
            raise ValueError(
                f"--duration-speaker and --durations {self.durations} both say how long: give one of the two"
            )
        if self.durations is None:
            return
        if self.durations != "predicted" and not re.fullmatch("from=.+", self.durations):
            raise ValueError(
                f"--durations {self.durations!r}: expected predicted or from=OTHER.wav"
            )
        if self.durations != "predicted" and self.rate != 1:
            raise ValueError("--rate and --durations from=… both say how long: give one of the two")

    @property
    def predicts(self) -> bool:
        """Whether the model says how long each unit lasts."""
        return self.durations == "predicted" or self.duration_speaker is not None


@dataclass(frozen=True)
class Converted:
    """What a conversion made.

    Attributes:
        wav: (T,) float32 at 16 kHz.
        speech: the streams that were spoken.
        f0: (N,) Hz that was asked for, None for a model without pitch.
        voice: that spoke.
        notes: what the user should know, a sentence each.
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
    """Says an utterance in another voice, melody or rhythm.

    Args:
        system: the models.
        wav: (T,) float at 16 kHz.
        target: a speaker of the model, recordings of somebody else, or a voice; None: the source.
        source: who speaks, if the model knows the voice.
        controls: what else changes.

    Raises:
        FileNotFoundError, ValueError: an unknown voice, a bad reference or control, or a model without the
            stream that a control needs.
    """
    controls = controls or Controls()
    check_streams(system, controls)
    voice = choose_voice(system, target, source)
    units = system.units(wav)
    positions = _positions(system, units, controls, voice)
    f0, notes, pitch = None, _duration_notes(system, controls), {}
    if system.pitch.exists:
        f0 = system.pitch.extract(wav)
        notes += [] if f0.any() else ["no voiced frame was found: silence, or no speech?"]
        own = system.pitch.entry(f0, source)
        entry = voice.entry or (system.statistics and system.statistics.overall) or own
        f0 = _melody(system, units, f0, own, entry, controls)
        if positions is not None:
            f0 = prosody.warp_f0(f0, positions, system.streams.unit_hop)
        note = prosody.range_warning(f0, entry) if controls.pitch else ""
        notes += [note] if note else []
    if positions is not None:
        units = units[prosody.nearest_indices(positions, len(units))]
    if f0 is not None:
        pitch = system.pitch.encode(f0, entry, len(units))
    if voice.measured:
        notes.append(
            f"{voice.name}: F0 {voice.entry['f0_mean']:.0f} ± {voice.entry['f0_std']:.0f} Hz, "
            f"from {voice.entry['num_voiced']} voiced frames"
        )
    samples = len(units) * system.streams.unit_hop
    speech = Utterance(
        units, speaker=voice.speaker, num_samples=samples, style=controls.style, **pitch
    )
    return Converted(system.decode_all([speech])[0], speech, f0, voice, tuple(notes))


def check_streams(system: SpeechSystem, controls: Controls) -> None:
    """Refuses controls of a stream that the model has not, with a ValueError."""
    if controls.pitch is not None and not system.pitch.exists:
        raise ValueError("--pitch needs a model with a pitch stream, and this bundle has none.")
    if controls.style is not None and not system.streams.styles:
        raise ValueError("--style needs a model with styles, and this bundle has none.")
    if not controls.predicts:
        return
    generator = system.bundle.generator
    if generator.duration_predictor is None:
        raise ValueError(
            "--durations predicted needs a model trained with --duration-predictor, and this bundle has none."
        )
    if controls.duration_speaker is None:
        return
    system.streams.speaker_index(controls.duration_speaker)
    if not generator.durations_need_speaker:
        raise ValueError(
            "--duration-speaker needs a model whose predicted durations depend on the speaker, and this "
            "bundle's do not: train with --duration-predictor --duration-condition speaker."
        )


def _duration_notes(system: SpeechSystem, controls: Controls) -> list[str]:
    if not controls.predicts or system.bundle.generator.durations_need_speaker:
        return []
    if len(system.streams.speakers) < 2 and not system.streams.speaker_dim:
        return []
    return ["the predicted durations are the same for every speaker of this model"]


def choose_voice(system: SpeechSystem, target: Target | None, source: str | None) -> Voice:
    """Returns the voice to speak with: the target, else the source, else the model's only one.

    Raises:
        FileNotFoundError, ValueError: none of these; see `references.find_voice`.
    """
    if isinstance(target, Voice):
        return target
    if target is None and source is None:
        names = system.streams.speakers
        if len(names) > 1 or system.streams.speaker_dim:
            raise ValueError(f"give a target: one of {', '.join(names)}.")
        return Voice(names[0] if names else "", names[0] if names else None, None)
    return find_voice(source if target is None else target, system.streams, system.statistics)


def _melody(
    system: SpeechSystem,
    units: np.ndarray,
    f0: np.ndarray,
    own: F0Entry,
    entry: F0Entry,
    controls: Controls,
) -> np.ndarray:
    """Returns (N,) Hz as the target voice speaks it, with the change that is asked for."""
    kind, path = prosody.parse_pitch(controls.pitch) if controls.pitch else ("", 0)
    if kind != "from":
        return prosody.apply_pitch(prosody.convert_f0(f0, own, entry), controls.pitch)
    other = system.waveform(str(path))
    melody = system.pitch.extract(other)
    if not (melody > 0).any():
        raise ValueError(f"--pitch {controls.pitch}: no frame of that recording is voiced")
    others = SpeakerStatistics.from_frames([("", melody)]).overall
    positions = prosody.align_units(units, system.units(other))
    borrowed = prosody.transfer_f0(f0, melody, positions, system.streams.unit_hop)
    return prosody.convert_f0(borrowed, others, entry)


def _positions(
    system: SpeechSystem, units: np.ndarray, controls: Controls, voice: Voice
) -> np.ndarray | None:
    """Returns where in the units each unit to speak lies, None for the same rhythm."""
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
