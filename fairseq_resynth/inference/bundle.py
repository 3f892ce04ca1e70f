"""A trained system as one folder without a pickle: the bundle.

config.json             format, sizes of the nets, the streams (with F0 statistics), identity
generator.safetensors   the unit vocoder, weight norm folded
f0_vqvae.safetensors    the F0 quantiser, when the model has a pitch stream
content_vqvae.safetensors  the VQ-VAE that makes the content units, when one does
kmeans.safetensors      the content units' centroids
speakers.json           F0 mean and deviation by speaker name
README.md               the model card
"""

import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import nn

from fairseq_resynth.data.pitch.representations import weights_hash
from fairseq_resynth.data.storage.files import (
    atomic_path,
    file_hash,
    read_json,
    write_json,
    write_text,
)
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.encoders.frames import WITHOUT_WEIGHTS
from fairseq_resynth.inference.checkpoints import load_f0_vqvae, load_unit_generator
from fairseq_resynth.modules.architectures import (
    UnitVocoderSizes,
    arch_of,
    build_vocoder,
    sizes_class,
    with_duration_condition,
)
from fairseq_resynth.modules.quantizers.content_vqvae import ContentVqvae
from fairseq_resynth.modules.quantizers.f0_vqvae import F0Vqvae, F0VqvaeSizes, build_f0_vqvae
from fairseq_resynth.modules.unit_generator import UnitGenerator

FORMAT = "fairseq_resynth bundle"
VERSION = 1
MODULES = ("generator", "f0_vqvae", "content_vqvae")
WEIGHTS = tuple(
    f"{name}.safetensors" for name in ("generator", "f0_vqvae", "kmeans", "content_vqvae")
)


@dataclass
class Bundle:
    """What a bundle's folder holds.

    Attributes:
        generator: the unit vocoder in evaluation mode; None, with its sizes and streams, in the bundle of
            an F0 quantiser alone.
        model: its sizes.
        streams: what it was trained on.
        f0_vqvae: the F0 quantiser, None without a pitch stream.
        f0_model: its sizes.
        kmeans: path of the centroids, None when the units are made elsewhere.
        identity: 16 hexadecimal digits over all weights.
        content_vqvae: the VQ-VAE that makes the content units, None when a k-means or another does.
    """

    generator: UnitGenerator | None
    model: UnitVocoderSizes | None
    streams: StreamSpec | None
    f0_vqvae: F0Vqvae | None = None
    f0_model: F0VqvaeSizes | None = None
    kmeans: Path | None = None
    identity: str = ""
    content_vqvae: ContentVqvae | None = None


def build_bundle(
    path: str | Path,
    f0_path: str | Path | None = None,
    kmeans: str | Path | None = None,
    ema: bool = False,
) -> Bundle:
    """Puts fairseq's checkpoints together.

    Args:
        path: of the unit vocoder.
        f0_path: of the F0 quantiser that made its pitch codes.
        kmeans: that made its units.
        ema: takes the averaged weights of --store-ema.

    Raises:
        FileNotFoundError, ValueError: no such checkpoint, or they do not belong together.
    """
    generator, streams, model = load_unit_generator(path, ema)
    f0_vqvae, f0_model = load_f0_vqvae(f0_path) if f0_path else (None, None)
    if f0_vqvae is not None:
        _check_hash("F0 quantiser", f0_path, weights_hash(f0_vqvae), streams.f0_codes, "vqvae_hash")
    if kmeans is not None:
        _check_hash("k-means", kmeans, file_hash(kmeans), streams.units, "kmeans_hash")
    return Bundle(generator, model, streams, f0_vqvae, f0_model, Path(kmeans) if kmeans else None)


def _check_hash(what: str, path: str | Path, found: str, description: dict, key: str) -> None:
    expected = description.get(key)
    if expected and expected != found:
        raise ValueError(
            f"the {what} {path} has hash {found}, the model was trained with {expected}: give the {what} "
            "that made its data."
        )


def _save_weights(path: Path, module: nn.Module | None, half: bool) -> None:
    if module is None:
        path.unlink(missing_ok=True)
        return
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    if half:
        state = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def _identity(folder: Path) -> str:
    hashes = [file_hash(folder / name) for name in WEIGHTS if (folder / name).is_file()]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]


def save_bundle(
    folder: str | Path, bundle: Bundle, license_name: str = "", half: bool = False
) -> str:
    """Writes a bundle; the configuration last, so that an interrupted one is not taken for whole.

    Args:
        folder: made if it is not there.
        bundle: what to write; its generator's weight norm is folded away.
        license_name: of the weights, for the model card, as the Hugging Face hub spells it.
        half: stores the vocoder's weights in float16, to be computed with in float32. The F0 quantiser keeps
            its own, since its codes must stay.

    Returns:
        The identity.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    if bundle.generator is not None:
        bundle.generator.generator.remove_weight_norm()
    parts = (bundle.generator, bundle.f0_vqvae, bundle.content_vqvae)
    for name, module in zip(MODULES, parts, strict=True):
        _save_weights(folder / f"{name}.safetensors", module, half and name == "generator")
    if bundle.kmeans is not None and bundle.kmeans != folder / "kmeans.safetensors":
        with atomic_path(folder / "kmeans.safetensors") as temporary:
            shutil.copyfile(bundle.kmeans, temporary)
    if bundle.streams is not None and bundle.streams.speaker_statistics:
        write_json(folder / "speakers.json", bundle.streams.speaker_statistics)
    bundle.identity = _identity(folder)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "identity": bundle.identity,
        "arch": arch_of(bundle.model) if bundle.model else None,
        "model": dataclasses.asdict(bundle.model) if bundle.model else None,
        "f0_vqvae": dataclasses.asdict(bundle.f0_model) if bundle.f0_model else None,
        "content_vqvae": bundle.content_vqvae.sizes() if bundle.content_vqvae else None,
        "streams": bundle.streams.to_dict() if bundle.streams else None,
    }
    write_text(folder / "README.md", model_card(bundle, license_name))
    write_json(folder / "config.json", config)
    return bundle.identity


def load_bundle(folder: str | Path) -> Bundle:
    """Reads a bundle.

    Raises:
        FileNotFoundError: no bundle there, or a file of it is missing.
        ValueError: another format or version, or weights that do not fit the configuration.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json", "Make a bundle with `resynth export`.")
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise ValueError(
            f"{folder / 'config.json'}: found format {config.get('format')!r} version "
            f"{config.get('version')}, expected {FORMAT!r} version {VERSION}."
        )
    streams = model = generator = f0_vqvae = f0_model = content_vqvae = None
    if config["model"]:
        streams = StreamSpec.from_dict(config["streams"])
        path = folder / "generator.safetensors"
        sizes = with_duration_condition(config["model"], _weight_names(path))
        model = sizes_class(config["arch"])(**sizes)
        generator = build_vocoder(model, streams)
        generator.generator.remove_weight_norm()
        _load_weights(path, generator)
    if config["f0_vqvae"]:
        f0_model = F0VqvaeSizes(**config["f0_vqvae"])
        f0_vqvae = build_f0_vqvae(f0_model)
        _load_weights(folder / "f0_vqvae.safetensors", f0_vqvae)
    if config.get("content_vqvae"):
        content_vqvae = ContentVqvae(**config["content_vqvae"])
        _load_weights(folder / "content_vqvae.safetensors", content_vqvae)
    kmeans = folder / "kmeans.safetensors"
    return Bundle(
        generator,
        model,
        streams,
        f0_vqvae,
        f0_model,
        kmeans if kmeans.is_file() else None,
        config["identity"],
        content_vqvae,
    )


def load_f0_quantizer(path: str | Path) -> F0Vqvae:
    """Loads the F0 quantiser of a checkpoint or of a bundle.

    Raises:
        FileNotFoundError, ValueError: no such file, or there is none in it.
    """
    if not Path(path).is_dir():
        return load_f0_vqvae(path)[0]
    f0_vqvae = load_bundle(path).f0_vqvae
    if f0_vqvae is None:
        raise ValueError(f"the bundle {path} has no F0 quantiser.")
    return f0_vqvae


def _weight_names(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the bundle.")
    try:
        with safetensors.safe_open(path, "pt") as weights:
            return list(weights.keys())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} does not fit the bundle's config.json: {error}") from error


def _load_weights(path: Path, module: nn.Module) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the bundle.")
    try:
        module.load_state_dict(load_file(path))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} does not fit the bundle's config.json: {error}") from error
    module.eval()


_USE = """
## Use

```bash
pip install fairseq_resynth
resynth synthesize --bundle THIS_FOLDER --input units.txt --outdir OUT{speaker}
```

```python
from fairseq_resynth import Resynthesizer

resynthesizer = Resynthesizer.from_pretrained("THIS_FOLDER"{encoder})
{example}
```
"""


def model_card(bundle: Any, license_name: str = "") -> str:
    """Returns the Markdown of a bundle's README.

    Args:
        bundle: `fairseq_resynth.inference.bundle.Bundle`, with its identity.
        license_name: of the weights, as the hub spells it (`mit`, `cc-by-4.0`, …); empty: not said.
    """
    header = ["library_name: fairseq_resynth", "pipeline_tag: audio-to-audio"]
    if license_name:
        header.append(f"license: {license_name}")
    header.append("tags: [speech, vocoder, unit-hifigan, voice-conversion, textless]")
    head = "---\n" + "\n".join(header) + "\n---\n\n"
    if bundle.generator is None:
        return (
            f"{head}# F0 quantiser\n\nPitch at 200 Hz to {bundle.f0_model.num_codes} codes at "
            f"{200 / bundle.f0_vqvae.stride:g} Hz, for `resynth quantize-f0 DATA --bundle THIS_FOLDER`.\n\n"
            f"- Identity: `{bundle.identity}`\n"
        )
    speaker = " --target NAME" if len(bundle.streams.speakers) > 1 else ""
    feature_type = bundle.streams.units.get("feature_type", "logmel")
    encoder = "" if feature_type in WITHOUT_WEIGHTS else ', content_checkpoint="ENCODER"'
    use = _USE.format(speaker=speaker, encoder=encoder, example=_example(bundle))
    return head + _facts(bundle) + use


def _facts(bundle: Any) -> str:
    streams = bundle.streams
    parameters = sum(p.numel() for p in bundle.generator.parameters()) / 1e6
    units = streams.units.get("feature_type", "unknown")
    layer = streams.units.get("layer")
    layer = "" if layer is None else f", layer {layer}"
    pitch = f"{streams.num_f0_codes} codes at {streams.sample_rate / streams.f0_code_hop:g} Hz"
    if not streams.num_f0_codes:
        pitch = "continuous, 200 Hz" if streams.f0_channels else "none"
    speakers = ", ".join(streams.speakers) or "none (one voice)"
    if streams.speaker_dim:
        speakers = f"any, by a vector of {streams.speaker_dim} dimensions"
    durations = "predicted" if bundle.model.duration_predictor else "as in the units"
    if bundle.generator.durations_need_speaker:
        durations = "predicted, as each speaker speaks"
    return f"""# Unit vocoder

Speech at {streams.sample_rate} Hz from discrete units; {parameters:.1f} M parameters.

- Units: {streams.num_units} ({units}{layer}) at {streams.sample_rate / streams.unit_hop:g} Hz
- Pitch: {pitch}
- Durations: {durations}
- Speakers: {speakers}
- Styles: {", ".join(streams.styles) or "none"}
- Identity: `{bundle.identity}`
"""


def _example(bundle: Any) -> str:
    streams = bundle.streams
    pitch = ", speech.f0_codes[None]" if streams.num_f0_codes else ""
    if streams.f0_channels:
        pitch = ", f0=speech.f0[None]"
    speaker = ', speaker="NAME"' if streams.speakers else ""
    if streams.speaker_dim:
        speaker = ", speaker=vector"
    style = ', style="NAME"' if streams.styles else ""
    return (
        'speech = resynthesizer.encode("speech.wav")\n'
        f"wav = resynthesizer.decode(speech.units[None]{pitch}{speaker}{style})"
    )
