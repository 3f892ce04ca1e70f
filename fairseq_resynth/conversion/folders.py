"""Conversion of whole folders: files that were made already are reused, those that fail are named."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fairseq_resynth.conversion.convert import Controls, check_controls, choose_voice, convert
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.storage.resume import Outcome, Record, with_content
from fairseq_resynth.inference.system import SpeechSystem
from fairseq_resynth.preparation.preprocess import find_sources


@dataclass
class ConversionOutcome(Outcome):
    """What a run did; `notes` are sentences about files that were written, by path."""

    notes: dict[str, list[str]] = field(default_factory=dict)


def find_inputs(source: str | Path, outdir: str | Path) -> dict[str, Path]:
    """{name in the output folder: path} of a file, or of the audio in a folder. Raises FileNotFoundError or
    ValueError if there is no audio, or two files differ only in their suffix."""
    source = Path(source)
    if source.is_file():
        return {source.stem: source}
    if not source.is_dir():
        raise FileNotFoundError(f"{source} does not exist")
    files = find_sources(source, outdir)
    found = {Path(file).with_suffix("").as_posix(): source / file for file in files}
    if len(found) < len(files):
        raise ValueError(f"{source} holds files that differ only in their suffix: rename them")
    return found


def parse_target(text: str) -> str | list[str]:
    """Splits `A.wav,B.wav`; a name or one file is returned as it is."""
    parts = [part for part in text.split(",") if part]
    return parts if len(parts) > 1 and not Path(text).is_file() else text


def convert_files(
    system: SpeechSystem,
    inputs: dict[str, Path],
    outdir: str | Path,
    target: str | list[str] | None,
    source: str | None,
    controls: Controls,
    advance: Callable[[], object] = lambda: None,
    overwrite: bool = False,
) -> ConversionOutcome:
    """Converts every input of `find_inputs` into `outdir`/name.wav; other arguments are those of `convert`.

    Files of the same settings and input are reused; `overwrite` replaces those that other settings, or
    something else, have made. `advance` is called after each file. Raises ValueError if the target or a
    control is impossible, or a file must not be replaced.
    """
    outcome = ConversionOutcome()
    voice = choose_voice(system, target, source)
    check_controls(system, controls)

    def write(path: Path, temporary: Path) -> float:
        done = convert(system, system.waveform(path), voice, source, controls)
        write_audio(temporary, done.wav)
        if done.notes:
            outcome.notes[str(path)] = list(done.notes)
        return len(done.wav) / system.streams.sample_rate

    with Record(outdir) as record:
        targets, _, options = made_by = _settings(target, source, controls)
        settings = record.key(system.bundle.identity, *made_by)
        # References, melodies and rhythms: options that name files come as [kind, path].
        named = [*targets, options["pitch"], options["durations"]]
        others = [option[1] for option in named if isinstance(option, list)]
        refuse_conflicts(record, settings, inputs, others, overwrite)
        for name, path in inputs.items():
            made, facts = partial(write, path), _facts(settings, path)
            record.make(outcome, f"{name}.wav", (settings, path), made, facts, source=path)
            advance()
    return outcome


def _facts(settings: str, source: Path) -> dict[str, str]:
    return {"settings": settings, "from": str(source.resolve())}


def _settings(target: str | list[str] | None, source: str | None, controls: Controls) -> list[Any]:
    targets = [target] if isinstance(target, str) else target or []
    named = {name: with_content(getattr(controls, name)) for name in ("pitch", "durations")}
    return [[with_content(one) for one in targets], source, asdict(controls) | named]


def refuse_conflicts(
    record: Record,
    settings: str,
    inputs: Mapping[str, Path],
    others: Iterable[Path],
    overwrite: bool,
) -> None:
    """Raises ValueError if a file to be written is read by the run, or was made by something else.
    `settings` is the key of everything but the inputs; `others` are files that are read in addition to
    them."""
    read = {path.resolve() for path in [*inputs.values(), *others]}
    for name, source in inputs.items():
        out = record.folder / f"{name}.wav"
        if out.resolve() in read:
            raise ValueError(f"{out} is read by this conversion: give another --outdir")
        if overwrite or not out.exists() or _facts(settings, source) in record.facts(f"{name}.wav"):
            continue
        raise ValueError(
            f"{out} exists, and this version has no record that it was made from {source} with these "
            "settings: give another --outdir, or --overwrite"
        )
