"""A small corpus and the verbs that write, each with the folder as it is before the verb runs."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from ended_commands import Commands
from published_checkpoints import make
from tiny_bundles import SIZES
from tiny_voices import save_toy_encoder

from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder

# The date of an evaluation, and the random name of a listening test
CHANGING = re.compile(rb'"date": "[^"]*"|"test": "[0-9a-f]{16}"')
SPEAKERS = ("anna", "boris")


@dataclass(frozen=True)
class Verb:
    """A command that writes, as it is given in the folder of the corpus.

    Attributes:
        words: the command.
        keeps: endings of the files that the next run keeps where they are complete; cheap ones are written
            again.
        before: what is to be done first, with the folder and `Commands`.
        complete: what it says, and fails, where all its files are there already, which it never replaces.
    """

    words: str
    keeps: tuple[str, ...] = ()
    before: Callable[[Path, Commands], object] = lambda folder, run: None
    complete: str = ""


def write_corpus(folder: Path) -> None:
    """Recordings of two speakers in folders of their names, a bundle, and what the verbs take else."""
    rng = np.random.default_rng(0)
    for speaker, pitch in zip(SPEAKERS, (210, 120), strict=True):
        (folder / "raw" / speaker).mkdir(parents=True)
        for number in range(4):
            time = np.arange(9600 + 1600 * number) / 16000
            wav = 0.4 * ((pitch + 10 * number) * time % 1) - 0.2 + 0.01 * rng.normal(size=len(time))
            soundfile.write(folder / "raw" / speaker / f"{number}.wav", wav, 16000)
    save_toy_encoder(folder)


def write_bundle(folder: Path, run: Commands) -> None:
    """A bundle of random weights on the k-means of the corpus, with the codec's context model."""
    torch.manual_seed(7)
    streams = StreamSpec(160, 20, speakers=SPEAKERS)
    sizes = UnitHifiganSizes(**SIZES)
    generator = build_vocoder(sizes, streams).eval()
    save_bundle(
        folder / "bundle", Bundle(generator, sizes, streams, kmeans=folder / "km.safetensors")
    )
    (folder / "units.txt").write_text((folder / "data/train.units").read_text())
    fit = "fit-codec units.txt --num-units 20 --unit-hop 160 --network 0 --out"
    assert run(*fit.split(), "bundle/entropy.safetensors").status == 0


def split_parts(folder: Path, run: Commands) -> None:
    """Parts of two shards that were made on different machines, so that none has joined them."""
    for place in ("units*", "f0/*.npy", "*speaker_vectors*", "speakers.json"):
        for path in folder.glob(f"data/{place}"):
            path.unlink()
    shutil.copytree(folder / "data", folder / "other")
    for data, part in (("data", "1/2"), ("other", "2/2")):
        for verb in ("quantize", "f0", "speakers"):
            words = VERBS[verb].words.replace(" data", f" {data}").split()
            assert run(*words, "--shard", part).status == 0
    for path in folder.glob("other/**/*-of-2*"):
        shutil.copy2(path, folder / "data" / path.relative_to(folder / "other"))
    shutil.rmtree(folder / "other")


def write_codes(folder: Path, run: Commands) -> None:
    """Units made elsewhere, and a manifest of their recordings."""
    lines = (folder / "data/train.tsv").read_text().splitlines()
    (folder / "all.tsv").write_text("\n".join(lines) + "\n")
    units = (
        " ".join(str(n % 9) for n in range(int(row.split("\t")[1]) // 320)) for row in lines[1:]
    )
    (folder / "codes.txt").write_text("".join(f"{row}\n" for row in units))


def write_published(folder: Path, run: Commands) -> None:
    """A checkpoint of another project."""
    make(folder / "published", StreamSpec(320, 10), {}, file="model.pt")


VERBS = {
    "preprocess": Verb("preprocess --srcdir raw --outdir audio --workers 1", (".flac",)),
    "manifest": Verb(
        "manifest audio --outdir data --speaker-from parent --valid-percent 25 --test-percent 25"
    ),
    "kmeans": Verb(
        "kmeans data --feature-type logmel --num-clusters 20 --out km.safetensors --workers 0"
    ),
    "quantize": Verb("quantize data --kmeans km.safetensors --workers 0", (".units",)),
    "f0": Verb("f0 data --method dio --workers 1", (".npy",)),
    "quantize-f0": Verb(
        "quantize-f0 data --f0-representation quantile --f0-bins 5 --f0-code-hop 1280", (".f0",)
    ),
    "speakers": Verb("speakers data --encoder torchscript:toy.pt --workers 1", ("vectors.npy",)),
    "merge": Verb("merge data", (".units", ".npy"), before=split_parts),
    "parse-codes": Verb(
        "parse-codes --codes codes.txt --manifest all.tsv --outdir parsed --cv 0.3 --tt 0.3 --dict-lines",
        before=write_codes,
    ),
    "pack": Verb("pack data --outdir pack --workers 1 --shard-size 1", (".pack/audio-00000.npy",)),
    "bpe train": Verb("bpe train --units data/train.units --vocab-size 30 --model bpe.model"),
    "bpe encode": Verb("bpe encode --units data/train.units --model bpe.model --out bpe.txt"),
    "fit-codec": Verb(
        "fit-codec units.txt --num-units 20 --unit-hop 160 --network 0 --out fitted.safetensors",
        before=write_bundle,
    ),
    "synthesize": Verb(
        "synthesize --bundle bundle --input data --split train --outdir speech --with-reference",
        (".wav",),
    ),
    "resynthesize": Verb(
        "resynthesize audio/anna/0.flac audio/boris/1.flac --bundle bundle --speaker anna --outdir again"
    ),
    "convert": Verb("convert audio --bundle bundle --target boris --outdir converted", (".wav",)),
    "encode folder": Verb(
        "encode audio --bundle bundle --speaker-from-folder -o coded", (".rsyn",)
    ),
    "encode file": Verb("encode audio/anna/0.flac --bundle bundle --speaker anna -o one.rsyn"),
    "encode archive": Verb("encode audio --bundle bundle --speaker-from-folder -o all.rsyna"),
    "decode folder": Verb("decode coded --bundle bundle -o decoded", (".wav",)),
    "decode archive": Verb("decode all.rsyna --bundle bundle -o members", (".wav",)),
    "decode file": Verb("decode one.rsyn --bundle bundle -o one.wav"),
    "export": Verb("export bundle --to hub-folder --license mit --outdir hub"),
    "export code-hifigan": Verb("export bundle --to code-hifigan --outdir foreign"),
    "export torchscript": Verb("export bundle --to torchscript --outdir graph"),
    "import": Verb(
        "import --from code-hifigan published --outdir imported", before=write_published
    ),
    "evaluate": Verb(
        "evaluate --generated speech --reference data --split train --metrics mcd,f0 --workers 1 "
        "--outdir report"
    ),
    "report": Verb("report report --outdir joined"),
    "listening-test": Verb(
        "listening-test --systems a=speech --kind mos --outdir listening",
        complete="listening has a test already",
    ),
    "codec-bench": Verb("codec-bench audio --bundle bundle --anchors opus:6 -n 2 --outdir rates"),
}


class Stages:
    """The folder before each verb and what each leaves, made once by running them in order.

    The folder that the verbs run in has the same path each time, since manifests and reports name it.
    """

    def __init__(self, root: Path, run: Commands):
        self.root, self.run, self.folder = root, run, run.folder
        self.changes: dict[str, int] = {}
        self.results: dict[str, dict[str, bytes]] = {}
        write_corpus(self.folder)

    def make(self, *names: str) -> None:
        """Runs these verbs, which must be in the order of `VERBS`."""
        for name in names:
            verb = VERBS[name]
            verb.before(self.folder, self.run)
            shutil.copytree(self.folder, self.root / name)
            done = self.run(*verb.words.split())
            assert done.status == 0, f"{name}: {done.err}{done.out}"
            self.changes[name] = done.changes
            self.results[name] = snapshot(self.folder)

    def restore(self, name: str) -> None:
        """Brings the folder to what it is before a verb."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.root / name, self.folder, dirs_exist_ok=True)


def snapshot(folder: Path) -> dict[str, bytes]:
    """The bytes of all files, hidden ones included, but for the record of what made them."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != ".made_by"
    }
    return {name: CHANGING.sub(b"", content) for name, content in files.items()}
