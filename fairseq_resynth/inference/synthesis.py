"""What to synthesize (data, a file of units, samples of a language model), and its synthesis to files."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fairseq_resynth.constants import F0_HOP, SAMPLE_RATE
from fairseq_resynth.data.audio.files import read_audio, write_audio
from fairseq_resynth.data.datasets.unit_split import UnitSplit
from fairseq_resynth.data.manifest import read_lines
from fairseq_resynth.data.storage.files import check_file_name
from fairseq_resynth.data.storage.messages import shown
from fairseq_resynth.data.storage.resume import Outcome, Record
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.data.unit_files import is_unit_folder, read_generated_units, read_unit_file
from fairseq_resynth.data.units import UnitRow, read_integer_rows
from fairseq_resynth.inference.decoder import UnitDecoder, decode_all, decode_in_chunks, is_long

WINDOW = 64  # utterances held in memory at a time
_REFERENCE = "_reference.wav"


@dataclass(frozen=True)
class Job:
    """One file to write: its path in the output folder without suffix, its speech, any recording of it."""

    name: str
    speech: Utterance
    reference: Path | None = None


def read_jobs(
    source: str | Path,
    streams: StreamSpec,
    split: str = "test",
    key: str = "",
    frames: bool | None = None,
) -> list[Job]:
    """Reads the utterances of one split of a data directory, or of a file that `read_unit_file` reads with
    `key`; NAME.f0 and NAME.speaker may stand next to it. `frames` says that each unit is a frame; None: it
    is, unless it looks otherwise. Raises FileNotFoundError or ValueError if a file is missing or malformed,
    lacks a stream of the model, or `frames` is needed."""
    source = Path(source)
    if source.is_dir() and not is_unit_folder(source):
        data = UnitSplit(source, split, streams)
        utterances = map(data.utterance, range(len(data.manifest)))
        return [Job(u.name, u, data.manifest.path(row)) for row, u in enumerate(utterances)]
    rows = read_unit_file(source, key)
    if frames is None and _look_collapsed(rows):
        raise ValueError(
            f"{source}: no unit is repeated, as in token strings whose runs are collapsed: give "
            "--dur-prediction to predict how long each lasts, or --no-dur-prediction if each is a frame."
        )
    f0_codes: Sequence[np.ndarray | None] = [None] * len(rows)
    if streams.num_f0_codes and any(row.f0 is None for row in rows):
        path = source.with_suffix(".f0")
        if not path.is_file():
            raise FileNotFoundError(
                f"the model has a pitch stream, and {path} does not exist: write one line of pitch codes per "
                f"line of {source.name} to it (`resynth quantize-f0` does so for a data directory)."
            )
        f0_codes = read_integer_rows(path, len(rows), "resynth quantize-f0")
    speakers = [row.speaker for row in rows]
    if source.with_suffix(".speaker").is_file():
        speakers = read_lines(source.with_suffix(".speaker"), len(rows), "resynth manifest")
    jobs = []
    for row, codes, speaker in zip(rows, f0_codes, speakers, strict=True):
        reference = Path(row.audio) if row.audio and Path(row.audio).is_file() else None
        pitch = {"f0_codes": codes} | _pitch(row, streams, source)
        length = len(row.units) * streams.unit_hop
        speech = Utterance(row.units, None, speaker, length, tokens=row.tokens)
        jobs.append(Job(row.label, replace(speech, **pitch), reference))
    return _checked(jobs, source, streams)


def _look_collapsed(rows: Sequence[UnitRow]) -> bool:
    return all(row.token_string and (np.diff(row.units) != 0).all() for row in rows)


def _pitch(row: UnitRow, streams: StreamSpec, source: Path) -> dict[str, np.ndarray]:
    """The pitch of a dict line, one value per unit, at the rate of the model's pitch stream."""
    if row.f0 is None or not streams.has_pitch:
        return {}
    hop = F0_HOP if streams.f0_channels else streams.f0_code_hop
    # Each frame of pitch takes the value of the unit in its middle. The hops are compared in samples, because
    # neither needs to divide the other.
    middles = np.arange(-(-len(row.units) * streams.unit_hop // hop)) * hop + hop // 2
    values = row.f0[np.minimum(middles // streams.unit_hop, len(row.units) - 1)]
    if streams.f0_channels:
        return {"f0": values.astype(np.float32)[None]}
    if not np.array_equal(row.f0, np.rint(row.f0)):
        raise ValueError(
            f"{source}: the f0 of {shown(row.label)} is continuous, and the model has "
            f"{streams.num_f0_codes} codes."
        )
    return {"f0_codes": values.astype(np.int64)}


def read_samples(
    source: str | Path, streams: StreamSpec, key: str = ""
) -> tuple[list[Job], list[str]]:
    """Reads what a unit language model wrote, for `predict_durations`: jobs, and notes on what was left out.
    The file is one that `read_generated_units` reads with `key`. Raises FileNotFoundError or ValueError if it
    is missing or has no units, or the model has pitch."""
    if streams.has_pitch:
        raise ValueError("the model needs pitch, and units without repeats come without it.")
    found = read_generated_units(source, key)
    jobs = [
        Job(row.label, Utterance(row.units, None, row.speaker, tokens=row.tokens))
        for row in found.rows
    ]
    notes = [f"{count} times {symbol} left out" for symbol, count in sorted(found.dropped.items())]
    notes += [f"{name}: no unit in it, nothing written" for name in found.empty]
    return _checked(jobs, source, streams), notes


def _checked(jobs: list[Job], source: str | Path, streams: StreamSpec) -> list[Job]:
    """The jobs with names that stay within the output folder; raises ValueError if one comes twice, or
    cannot be the name of a file, or if a stream is not one of the model's."""
    jobs = [replace(job, name=job.name.strip("/").replace("..", "_")) for job in jobs]
    first: dict[str, int] = {}
    for number, job in enumerate(jobs, 1):
        if (line := first.setdefault(job.name, number)) != number:
            raise ValueError(f"{source}:{number}: {shown(job.name)} is already on line {line}.")
        try:
            check_file_name(job.name, ".wav")
        except ValueError as error:
            raise ValueError(f"{source}:{number}: {error}") from error
        codes, size = job.speech.f0_codes, len(job.speech.units) * streams.unit_hop
        _check_table(f"{source}: unit of {shown(job.name)}", job.speech.units, streams.num_units)
        if streams.num_f0_codes and codes is not None:
            _check_table(f"{source}: pitch code of {shown(job.name)}", codes, streams.num_f0_codes)
            if (needed := -(-size // streams.f0_code_hop)) > len(codes):
                raise ValueError(
                    f"{source}: {shown(job.name)} has {len(codes)} pitch codes, expected {needed} or more "
                    f"for its {len(job.speech.units)} units"
                )
    return jobs


def _check_table(what: str, values: np.ndarray, size: int) -> None:
    if len(values) and values.max() >= size:
        raise ValueError(f"{what}: found {values.max()}, the model has 0 to {size - 1}")


def predict_durations(jobs: Sequence[Job], decoder: UnitDecoder, rate: float) -> list[Job]:
    """Repeats each unit as `UnitDecoder.expand` does, in the voice of each job."""
    voices = [job.speech.speaker for job in jobs]
    expanded = decoder.expand([job.speech.units for job in jobs], rate, speaker=voices)
    hop = decoder.streams.unit_hop
    return [
        replace(job, speech=replace(job.speech, units=units, num_samples=len(units) * hop))
        for job, units in zip(jobs, expanded, strict=True)
    ]


def with_tokens(jobs: Sequence[Job], streams: StreamSpec, tokens: Mapping[str, str]) -> list[Job]:
    """Gives every utterance some named tokens, such as {"style": "sad"}, instead of its own. Raises
    ValueError if the model needs one that is not given or that it does not know."""
    streams.check_tokens(tokens)
    spoken = []
    for job in jobs:
        names = {**job.speech.tokens, **tokens}
        try:
            for token in streams.tokens:
                streams.token_index(token, names.get(token))
        except ValueError as error:
            raise ValueError(f"{shown(job.name)}: {error}") from error
        spoken.append(replace(job, speech=replace(job.speech, tokens=names)))
    return spoken


def in_other_voices(
    jobs: Sequence[Job], streams: StreamSpec, names: Sequence[str], random_voices: int, seed: int
) -> list[Job]:
    """One job for each utterance and each voice that is not its own: of `names`, or all of the model's.
    `random_voices` of them are drawn for each utterance; 0: all. Raises ValueError for an unknown voice, or
    if the model has no other."""
    for name in names:
        streams.speaker_index(name)
    if len(streams.speakers) < 2:
        raise ValueError("--vc: the model has fewer than two speakers.")
    generator = random.Random(seed)
    converted = []
    for job in jobs:
        own = job.speech.speaker if isinstance(job.speech.speaker, str) else None
        voices = [name for name in names or streams.speakers if name != own]
        if random_voices:
            voices = generator.sample(voices, min(random_voices, len(voices)))
        for voice in voices:
            name = f"{job.name}_{voice.replace('/', '_')}"
            converted.append(replace(job, name=name, speech=replace(job.speech, speaker=voice)))
    return converted


@dataclass
class SynthesisOutcome(Outcome):
    """What `write_wavs` did; `model_seconds` are those that the generator took for the files written."""

    model_seconds: float = 0.0


def write_wavs(
    decoder: UnitDecoder,
    jobs: Sequence[Job],
    outdir: str | Path,
    settings: dict,
    subtype: str = "PCM_16",
    peak_normalize: bool = False,
    with_reference: bool = False,
    advance: Callable[[int], object] = lambda count: None,
    reuse: Callable[[int], object] = lambda count: None,
) -> SynthesisOutcome:
    """Synthesizes every job into `outdir`/name.wav; what the same model made of the same job is reused.

    Args:
        settings: JSON types, what the files depend on in addition to jobs and options: model and precision.
        subtype: PCM_16 or FLOAT.
        peak_normalize: scales each file to a peak of 0.95; otherwise loudness is as the model gives it.
        with_reference: also writes the recording, as long as the synthesis, to name_reference.wav.
        advance: called with the number of jobs done since the last call.
        reuse: called with the number of jobs that an earlier run has done.

    Raises ValueError, before anything is written, if a file to be written is a recording of the data, or its
    name is that of a folder of another, or no file can have it.
    """
    outdir, outcome = Path(outdir), SynthesisOutcome()
    _check_outputs(jobs, outdir, with_reference)
    options = subtype, peak_normalize, with_reference
    with Record(outdir) as record:
        keys = [
            record.key(settings, job.speech, job.reference if with_reference else None, *options)
            for job in jobs
        ]
        todo = [
            record.find(f"{job.name}.wav", key) is None for job, key in zip(jobs, keys, strict=True)
        ]
        outcome.reused = len(jobs) - sum(todo)
        reuse(outcome.reused)
        # A window of which some is done is synthesized again as a whole: the last bits of samples depend on
        # the utterances that are decoded together.
        for start in range(0, len(jobs), WINDOW):
            window = slice(start, start + WINDOW)
            if not any(todo[window]):
                continue
            speech = _synthesized(decoder, jobs[window], peak_normalize, outcome)
            for job, key, wanted, pieces in zip(
                jobs[window], keys[window], todo[window], speech, strict=True
            ):
                if wanted:
                    length = _write_job(record, job, key, pieces, subtype, with_reference)
                    outcome.seconds += length / SAMPLE_RATE
                    outcome.written += 1
            advance(sum(todo[window]))
    return outcome


def _write_job(
    record: Record,
    job: Job,
    key: str,
    pieces: Iterable[np.ndarray],
    subtype: str,
    with_reference: bool,
) -> int:
    """Writes the files of a job, and returns the number of samples. The recording is written before the
    synthesis is recorded, so that a run that is killed between them makes both again."""
    with record.writing(f"{job.name}.wav", key) as temporary:
        length = write_audio(temporary, pieces, subtype=subtype)
        if with_reference and job.reference:
            wav = read_audio(job.reference, 0, min(length, job.speech.num_samples or length))
            write_audio(record.folder / f"{job.name}{_REFERENCE}", wav, subtype=subtype)
    return length


def _check_outputs(jobs: Sequence[Job], outdir: Path, with_reference: bool) -> None:
    recordings = {job.reference.resolve() for job in jobs if job.reference}
    names = {f"{job.name}.wav" for job in jobs}
    for job in jobs:
        check_file_name(job.name, _REFERENCE if with_reference and job.reference else ".wav")
        if folder := next((f for f in map(str, Path(job.name).parents) if f in names), None):
            raise ValueError(
                f"{shown(folder)} would be both a file and the folder of {shown(job.name)}.wav"
            )
        for out in (outdir / f"{job.name}.wav", outdir / f"{job.name}{_REFERENCE}"):
            if out.resolve() in recordings:
                raise ValueError(f"{out} is a recording of the data: give another --outdir.")


def _synthesized(
    decoder: UnitDecoder, jobs: list[Job], peak_normalize: bool, outcome: SynthesisOutcome
) -> Iterator[Iterable[np.ndarray]]:
    """Yields the (n,) pieces of each job; an hour of speech takes no more memory than a minute."""
    # The peak is that of the whole file, which then has to be in memory.
    long = [is_long(decoder, job.speech) and not peak_normalize for job in jobs]
    started = time.perf_counter()
    short = [job.speech for job, in_pieces in zip(jobs, long, strict=True) if not in_pieces]
    wavs = iter(decode_all(decoder, short))
    outcome.model_seconds += time.perf_counter() - started
    for job, in_pieces in zip(jobs, long, strict=True):
        if in_pieces:
            yield _timed(decode_in_chunks(decoder, job.speech), outcome)
            continue
        wav = next(wavs)
        yield [wav * (0.95 / max(float(np.abs(wav).max()), 1e-5)) if peak_normalize else wav]


def _timed(pieces: Iterator[np.ndarray], outcome: SynthesisOutcome) -> Iterator[np.ndarray]:
    started = time.perf_counter()
    for piece in pieces:
        outcome.model_seconds += time.perf_counter() - started
        yield piece
        started = time.perf_counter()
