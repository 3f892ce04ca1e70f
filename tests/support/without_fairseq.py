"""Runs the verbs that need no fairseq, one after the other, in a process in which importing fairseq raises.

usage: without_fairseq.py FOLDER        FOLDER: an empty folder. The name of each verb is printed after it.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


class RefuseFairseq:
    """An import hook; the error is none that the command line turns into a sentence."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "fairseq":
            raise RuntimeError(f"{name} is imported")


sys.meta_path.insert(0, RefuseFairseq())

from published_checkpoints import golden, make  # noqa: E402
from tiny_voices import SPEECH, save_tiny_bundle  # noqa: E402

import fairseq_resynth  # noqa: E402
from fairseq_resynth.cli.main import main  # noqa: E402
from fairseq_resynth.data.streams import StreamSpec  # noqa: E402
from fairseq_resynth.play.server import PlayServer  # noqa: E402

TRAINED = HERE.parents[1] / "examples" / "asterisk" / "bundle"


def resynth(verb: str, *arguments) -> None:
    status = main([verb, *map(str, arguments)])
    if status:
        raise SystemExit(f"{verb} ended with {status}")
    print("done:", verb, flush=True)


def save_tiny_hubert(folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = transformers.HubertConfig(
        **sizes,
        num_hidden_layers=2,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    transformers.HubertModel(config).save_pretrained(folder)
    return folder


def prepare(folder: Path) -> Path:
    """Recordings to units and pitch codes; a trained bundle quantizes F0."""
    data, bundle = folder / "data", save_tiny_bundle(folder / "tiny", False)
    for voice in ("english", "russian"):
        (folder / "recordings" / voice).mkdir(parents=True)
        for path in sorted((SPEECH / voice).glob("*.flac"))[:4]:
            (folder / "recordings" / voice / path.name).write_bytes(path.read_bytes())
    resynth(
        "preprocess",
        "--srcdir",
        folder / "recordings",
        "--outdir",
        folder / "speech",
        "--workers",
        1,
    )
    split = ["--valid-percent", 0, "--test-percent", 25]
    resynth("manifest", folder / "speech", "--outdir", data, "--speaker-from", "parent", *split)
    hubert = ["--content-checkpoint", save_tiny_hubert(folder / "hubert"), "--layer", 1]
    for name, encoder in {"hf": hubert, "logmel": []}.items():
        options = ["--feature-type", name, *encoder, "--num-clusters", 20]
        resynth("kmeans", data, *options, "--out", folder / f"{name}.safetensors")
        resynth("quantize", data, "--kmeans", folder / f"{name}.safetensors", *encoder[:2])
    resynth("f0", data, "--method", "dio", "--workers", 1, "--accept-unvoiced")
    resynth("quantize-f0", data, "--bundle", TRAINED)
    return bundle


def speak(folder: Path, bundle: Path) -> None:
    """Everything that makes speech, with the trained bundle where no encoder is needed."""
    wav, out = SPEECH / "english" / "call-from.flac", folder / "out"
    held_out = TRAINED.parent / "held_out"
    resynth(
        "synthesize", "--bundle", TRAINED, "--input", held_out, "-n", 1, "--outdir", out / "said"
    )
    voice = ["--speaker", "anna", "--target", "boris"]
    resynth("resynthesize", wav, "--bundle", bundle, *voice, "--outdir", out / "again")
    resynth("convert", wav, "--bundle", bundle, *voice, "--outdir", out / "converted")
    PlayServer.serve_forever = lambda self: None
    resynth("play", "--bundle", bundle, "--port", 0)
    reference = ["--reference", folder / "speech" / "english", "--metrics", "f0,mel"]
    generated = folder / "speech" / "english"
    resynth("evaluate", "--generated", f"same={generated}", *reference, "--outdir", out / "report")


def compress(folder: Path) -> None:
    """The codec, on a bundle with pitch codes or none."""
    streams = {"f0_channels": 0, "f0_codes": {}}
    bundle = save_tiny_bundle(folder / "coded", False, **streams)
    units = folder / "units.txt"
    units.write_text("".join(f"{number}|{'1 2 3 3 4 ' * 8}\n" for number in range(4)))
    model = bundle / "entropy.safetensors"
    options = ["--num-units", 20, "--unit-hop", 160, "--network", 0]
    resynth("fit-codec", units, *options, "--out", model)
    wav, coded = SPEECH / "english" / "call-from.flac", folder / "speech.rsyn"
    resynth("encode", wav, "--bundle", bundle, "--speaker", "anna", "-o", coded)
    resynth("inspect", coded, "--bundle", bundle)
    resynth("decode", coded, "--bundle", bundle, "-o", folder / "speech.wav")


def exchange(folder: Path, bundle: Path) -> None:
    """Other projects' formats."""
    checkpoint, _ = make(folder / "published", StreamSpec(320, 10), {})
    source = ["--from", "code-hifigan", checkpoint]
    resynth("import", *source, "--outdir", folder / "imported")
    original = golden("vctk_hubert100_lut_small", folder / "original")
    resynth("import", "--from", "speech-resynthesis", original, "--outdir", folder / "vctk")
    resynth("export", folder / "imported", "--to", "code-hifigan", "--outdir", folder / "exported")
    resynth("export", bundle, "--to", "hub-folder", "--license", "mit", "--outdir", folder / "hub")


def run(folder: Path) -> None:
    bundle = prepare(folder)
    speak(folder, bundle)
    compress(folder)
    exchange(folder, bundle)
    fairseq_resynth.Resynthesizer.from_pretrained(TRAINED, decode_only=True)
    assert not [name for name in sys.modules if name.split(".")[0] == "fairseq"]


if __name__ == "__main__":
    run(Path(sys.argv[1]))
