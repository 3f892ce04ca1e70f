"""What other runs leave, and texts of options and of the web page."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kinds import Kind, one
from kinds_of_data import sound
from mutations import change_bytes, change_json, change_json_lines, change_lines
from small_corpus import write_data

from fairseq_resynth.conversion.convert import Controls
from fairseq_resynth.data.pitch.extraction import F0Options
from fairseq_resynth.data.storage.files import map_array
from fairseq_resynth.data.storage.shards import Shard, parse_shard
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.encoders.speaker import parse_encoder
from fairseq_resynth.evaluation.codecs.baselines import parse_baselines
from fairseq_resynth.evaluation.metrics.intelligibility import parse_recognizer
from fairseq_resynth.evaluation.runs.pairing import named_folder
from fairseq_resynth.modules.discriminators.families import parse_names
from fairseq_resynth.modules.options import option_integers
from fairseq_resynth.play.requests import parse_request
from fairseq_resynth.preparation.f0 import build_f0
from fairseq_resynth.preparation.merge import merge
from fairseq_resynth.preparation.preprocess import PreprocessOptions, preprocess


@contextlib.contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    """A copy of a folder, for readers that change it."""
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


F0 = F0Options("dio")


def _parts(folder: Path) -> None:
    """Two shards of F0 that nobody has joined: each was made without the other."""
    for name in ("data", "other"):
        write_data(folder / name, {"train": [2560, 3840]})
    (folder / "other" / "train.tsv").write_bytes((folder / "data" / "train.tsv").read_bytes())
    for index, name in enumerate(("data", "other"), 1):
        build_f0(folder / name, "train", F0, Shard(index, 2), 0, True)
    for file in (folder / "other" / "f0").iterdir():
        shutil.move(file, folder / "data" / "f0" / file.name)
    shutil.rmtree(folder / "other")


def _merge(path: Path) -> None:
    with _copied(path.parents[1]) as data:
        joined, waiting = merge(data)
        if "f0/train.npy" in joined:
            assert map_array(data / "f0" / "train.npy").ndim == 1 and not waiting
            assert (data / "speakers.json").is_file()


def _resume(path: Path) -> None:
    with _copied(path.parents[1]) as data:
        build_f0(data, "train", F0, Shard(1, 2), 0, True)


def _preprocessed(folder: Path) -> None:
    (folder / "out" / "raw").mkdir(parents=True)
    (folder / "out" / "raw" / "a.wav").write_bytes(sound("WAV"))
    preprocess(folder / "out" / "raw", folder / "out" / "made", PreprocessOptions(), workers=0)


def _preprocess(path: Path) -> None:
    with _copied(path.parents[2]) as out:
        done = preprocess(out / "raw", out / "made", PreprocessOptions(), workers=0)
        assert not done.failed and done.written + done.reused >= 1


STREAMS = StreamSpec(320, 10, 1280, 4, ("anna", "boris"), tokens={"style": ("calm", "sad")})
REQUEST = {"source": "k", "voice": "anna", "pitch": "shift=+3st", "rate": 0.8, "style": "sad"}


def _text(parse: Callable[[str], object], path: Path) -> None:
    """A text as a command line gives it; what it names may be no file of this system."""
    text = path.read_bytes().decode("utf-8", "surrogateescape").replace("\0", "")
    with contextlib.suppress(OSError):
        parse(text)


def _option(text: str, parse: Callable[[str], object]) -> Kind:
    return one("text", text.encode(), [partial(_text, parse)], change_bytes, change_lines, count=20)


def _in_parts(name: str, *changes: Callable) -> Kind:
    return Kind(_parts, f"data/f0/{name}", [_merge, _resume], changes, 15)


RUNS = {
    "state of a shard": _in_parts("train.npy.1-of-2.json", change_bytes, change_json),
    "rows of a shard": _in_parts("train.npy.1-of-2.rows", change_bytes),
    "part of a shard": _in_parts("train.npy.1-of-2", change_bytes),
    "record of preprocess": Kind(
        _preprocessed,
        "out/made/.made_by/*.jsonl",
        [_preprocess],
        [change_bytes, change_json_lines],
        15,
    ),
    "request of the page": one(
        "request",
        json.dumps(REQUEST).encode(),
        [lambda path: parse_request(path.read_bytes(), STREAMS)],
        change_bytes,
        change_json,
        count=50,
    ),
    "--pitch": _option("shift=+3.5st", lambda text: Controls(pitch=text)),
    "--durations": _option("from=a.wav", lambda text: Controls(durations=text)),
    "--shard": _option("2/4", parse_shard),
    "--encoder": _option("onnx-fbank:a.onnx", parse_encoder),
    "--recognizer": _option("ctc:a/b", parse_recognizer),
    "--baselines": _option("opus:9,griffinlim", parse_baselines),
    "--discriminators": _option("mpd,msd", parse_names),
    "integers of an option": _option("5,4,4", lambda text: option_integers(text, "strides")),
    "NAME=DIR": _option("a=b/c", named_folder),
}
