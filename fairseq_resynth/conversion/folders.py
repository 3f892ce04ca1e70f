"""Conversion of whole folders: what is there is reused, what fails is named."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fairseq_resynth.conversion.convert import Controls, check_streams, choose_voice, convert
from fairseq_resynth.data.audio.files import write_audio
from fairseq_resynth.data.storage.files import file_hash
from fairseq_resynth.inference.system import SpeechSystem
from fairseq_resynth.preparation.preprocess import find_sources


@dataclass
class ConversionOutcome:
    """What a run did; `failed` and `notes` map files to reasons and to sentences."""

    written: int = 0
    reused: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def find_inputs(source: str | Path, outdir: str | Path) -> dict[str, Path]:
    """Returns {name in the output folder: path} of a file or of the audio in a folder.

    Raises:
        FileNotFoundError, ValueError: nothing there, or two files that differ only in their suffix.
    """
    source = Path(source)
    if source.is_file():
        return {source.stem: source}
    if not source.is_dir():
        raise FileNotFoundError(f"{source} does not exist")
    files = find_sources(source, outdir)
    found = {file.with_suffix("").as_posix(): source / file for file in files}
    if len(found) < len(files):
        raise ValueError(f"{source} holds files that differ only in their suffix: rename them")
    return found


def parse_target(text: str) -> str | list[str]:
    """Splits `A.wav,B.wav`; a name or one file is returned as it is."""
    parts = [part for part in text.split(",") if part]
    several = len(parts) > 1 and not Path(text).is_file()
    return parts if several else text


def _hashed(option: str | None) -> str | None:
    """A file's content stands for it in what a run depends on."""
    name, _, path = (option or "").partition("=")
    path = path or name
    return f"{option} {file_hash(path)}" if Path(path).is_file() else option


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
    """Converts every input into `outdir`/name.wav; the same settings again continue where it stopped.

    Args:
        system: the models.
        inputs: see `find_inputs`.
        outdir: made if it is not there.
        target: a speaker of the model or recordings of one person; None: the source.
        source: who speaks, if the model knows the voice.
        controls: what else changes.
        advance: called after each file.
        overwrite: replaces files of other settings, or of something else, that are in the way.

    Raises:
        ValueError: the target or a control is impossible, or a file is in the way.
    """
    outdir, outcome = Path(outdir), ConversionOutcome()
    voice = choose_voice(system, target, source)
    check_streams(system, controls)
    record = ConversionRecord(outdir, _settings(system, target, source, controls))
    record.refuse(inputs, _read_beside(target, controls), overwrite)
    for name, path in inputs.items():
        if record.is_made(name, path):
            outcome.reused += 1
        else:
            record.begin(name, path)
            _convert_file(system, path, record.out(name), (voice, source, controls), outcome)
        advance()
    return outcome


def _read_beside(target: str | list[str] | None, controls: Controls) -> list[Path]:
    """Returns the files that are read beside the inputs."""
    targets = [target] if isinstance(target, str) else target or []
    named = [(text or "").removeprefix("from=") for text in (controls.pitch, controls.durations)]
    return [path for path in map(Path, [*targets, *named]) if path.is_file()]


def _settings(
    system: SpeechSystem, target: str | list[str] | None, source: str | None, controls: Controls
) -> dict[str, Any]:
    targets = [target] if isinstance(target, str) else target or []
    values = {**asdict(controls), "pitch": _hashed(controls.pitch)}
    return {
        "bundle": system.bundle.identity,
        "target": [_hashed(one) for one in targets],
        "source": source,
        **values,
        "durations": _hashed(controls.durations),
    }


def _convert_file(
    system: SpeechSystem, path: Path, out: Path, how: tuple, outcome: ConversionOutcome
) -> None:
    try:
        done = convert(system, system.waveform(path), *how)
    except (ValueError, OSError) as error:
        outcome.failed[str(path)] = str(error)
        return
    write_audio(out, done.wav)
    outcome.written += 1
    outcome.seconds += len(done.wav) / system.streams.sample_rate
    if done.notes:
        outcome.notes[str(path)] = list(done.notes)


RECORD = "conversion.jsonl"


class ConversionRecord:
    """A line a file in `conversion.jsonl`, added before the file is written; a name's last line counts.

    Args:
        outdir: of the wavs.
        settings: what they depend on beside their source, as JSON types.

    Raises:
        ValueError: a line that is no record, with its number.
    """

    def __init__(self, outdir: Path, settings: Mapping[str, Any]):
        self._path, self._outdir = outdir / RECORD, outdir
        text = json.dumps(settings, sort_keys=True)
        self._settings = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._made = dict(self._lines()) if self._path.is_file() else {}

    def _lines(self) -> Iterable[tuple[str, dict[str, str]]]:
        lines = self._path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                yield values["name"], values
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    return  # an interrupted run cut it short
                raise ValueError(f"{self._path}:{number}: no line of `resynth convert`") from error

    def out(self, name: str) -> Path:
        """Returns where the wav of that name goes."""
        return self._outdir / f"{name}.wav"

    def is_made(self, name: str, source: Path) -> bool:
        """Tells whether the wav is there, of these settings and of this source as it is now."""
        made = self._made.get(name, {})
        if not self.out(name).is_file() or made.get("settings") != self._settings:
            return False
        return made.get("source") == file_hash(source)

    def refuse(self, inputs: Mapping[str, Path], others: Iterable[Path], overwrite: bool) -> None:
        """Refuses to write over what is to be read, and over what something else has made.

        Args:
            inputs: name -> source of each wav to come.
            others: what is read beside them: references, melodies.
            overwrite: allows the second.

        Raises:
            ValueError: the first such file.
        """
        read = {path.resolve() for path in [*inputs.values(), *others]}
        for name, source in inputs.items():
            out = self.out(name)
            if out.resolve() in read:
                raise ValueError(f"{out} is read by this conversion: give another --outdir")
            if out.exists() and not overwrite and self._is_anothers(name, source):
                raise ValueError(
                    f"{out} is there, and not of these settings and this recording: give another --outdir, "
                    "or --overwrite"
                )

    def _is_anothers(self, name: str, source: Path) -> bool:
        made = self._made.get(name, {})
        same = made.get("settings") == self._settings
        return not (same and made.get("from") == str(source.resolve()))

    def begin(self, name: str, source: Path) -> None:
        """Removes what is there under that name, and says what comes."""
        self.out(name).unlink(missing_ok=True)
        line = {
            "name": name,
            "settings": self._settings,
            "from": str(source.resolve()),
            "source": file_hash(source),
        }
        self._made[name] = line
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
