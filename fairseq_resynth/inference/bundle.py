"""The bundle: a trained system as one folder, without a pickle.

config.json                format, sizes of the networks, the streams (with F0 statistics), identity
generator.safetensors      the unit vocoder, weight norm folded
f0_vqvae.safetensors       the F0 quantizer, if the model has pitch codes of one
content_vqvae.safetensors  the VQ-VAE that makes the content units, if they come from one
kmeans.safetensors         the k-means that makes the content units, if they come from one
speakers.json              mean and standard deviation of F0 by speaker name
entropy.safetensors        the codec's context model, once `resynth fit-codec` has written it here
README.md                  the model card
"""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import nn

from fairseq_resynth.constants import WITHOUT_WEIGHTS
from fairseq_resynth.data.storage.files import (
    atomic_path,
    file_hash,
    read_json,
    write_json,
    write_text,
)
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.hub import ENTROPY_FILE, WEIGHTS, find_bundle
from fairseq_resynth.modules.architectures import (
    UnitVocoderSizes,
    arch_of,
    build_vocoder,
    sizes_class,
    with_duration_condition,
)
from fairseq_resynth.modules.quantizers import ContentVqvae, F0Vqvae, F0VqvaeSizes
from fairseq_resynth.modules.unit_generator import UnitGenerator

FORMAT = "fairseq_resynth bundle"
VERSION = 1


@dataclass
class Bundle:
    """The contents of a bundle; one of an F0 quantizer alone has no generator, model and streams.

    Attributes:
        generator: the unit vocoder in evaluation mode.
        model: sizes of the unit vocoder.
        streams: the streams that it was trained on.
        f0_vqvae: the F0 quantizer; None if the model has no pitch codes of one.
        f0_model: sizes of the F0 quantizer.
        kmeans: path of the k-means; None if something else makes the units.
        identity: 16 hexadecimal digits, a hash of all weights.
        content_vqvae: the VQ-VAE that makes the content units; None if something else does.
        entropy: path of the codec's context model; None if there is none.
    """

    generator: UnitGenerator | None
    model: UnitVocoderSizes | None
    streams: StreamSpec | None
    f0_vqvae: F0Vqvae | None = None
    f0_model: F0VqvaeSizes | None = None
    kmeans: Path | None = None
    identity: str = ""
    content_vqvae: ContentVqvae | None = None
    entropy: Path | None = None


def require_vocoder(bundle: Bundle) -> Bundle:
    """Returns the bundle; raises ValueError if it has no unit vocoder."""
    if bundle.generator is None:
        raise ValueError(
            "the bundle contains only an F0 quantizer; speech needs the bundle of a unit vocoder."
        )
    return bundle


def _save_weights(path: Path, module: nn.Module | None, half: bool) -> None:
    if module is None:
        path.unlink(missing_ok=True)
        return
    state = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous()
        for name, value in module.state_dict().items()
    }
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def _identity(folder: Path) -> str:
    """The identity of the weights in a folder; empty without any."""
    hashes = [file_hash(folder / name) for name in WEIGHTS if (folder / name).is_file()]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16] if hashes else ""


def save_bundle(
    folder: str | Path, bundle: Bundle, license_name: str = "", half: bool = False
) -> str:
    """Writes a bundle, the configuration last, so that an interrupted bundle cannot be loaded.

    Nothing of another bundle that was in the folder stays; the codec's context model stays if the weights
    are the same. The weight norm of the generator is folded away.

    Args:
        folder: created if it does not exist.
        bundle: its contents.
        license_name: license of the weights for the model card, as the Hugging Face hub spells it.
        half: whether to store the vocoder's weights in float16; they are computed with in float32. The F0
            quantizer stays in float32, because its codes must not change.

    Returns:
        The identity.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    previous = _identity(folder)
    (folder / "config.json").unlink(missing_ok=True)
    if bundle.generator is not None:
        bundle.generator.generator.remove_weight_norm()
    for name in ("generator", "f0_vqvae", "content_vqvae"):
        path = folder / f"{name}.safetensors"
        _save_weights(path, getattr(bundle, name), half and name == "generator")
    kmeans, speakers = folder / "kmeans.safetensors", folder / "speakers.json"
    if bundle.kmeans is None:
        kmeans.unlink(missing_ok=True)  # of a bundle that was in the folder before
    else:
        _copy(bundle.kmeans, kmeans)
    speakers.unlink(missing_ok=True)
    if bundle.streams is not None and bundle.streams.speaker_statistics:
        write_json(speakers, bundle.streams.speaker_statistics)
    bundle.identity = _identity(folder)
    entropy = folder / ENTROPY_FILE
    if bundle.entropy not in (None, entropy):
        _copy(bundle.entropy, entropy)
    elif previous not in ("", bundle.identity):  # a context model of other units
        entropy.unlink(missing_ok=True)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "identity": bundle.identity,
        "arch": arch_of(bundle.model) if bundle.model else None,
        "model": dataclasses.asdict(bundle.model) if bundle.model else None,
        "f0_vqvae": dataclasses.asdict(bundle.f0_model) if bundle.f0_model else None,
        "content_vqvae": bundle.content_vqvae.arguments if bundle.content_vqvae else None,
        "streams": bundle.streams.to_dict() if bundle.streams else None,
    }
    write_text(folder / "README.md", model_card(bundle, license_name))
    write_json(folder / "config.json", config)
    return bundle.identity


def _copy(source: Path, target: Path) -> None:
    if source != target:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def load_bundle(name: str | Path) -> Bundle:
    """Loads a bundle that `find_bundle` finds.

    Raises FileNotFoundError if it or a file of it is missing, ValueError for another format or version, or
    weights that do not fit the configuration.
    """
    folder = find_bundle(name)
    config = read_json(folder / "config.json", "Make a bundle with `resynth export`.")
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise ValueError(
            f"{folder / 'config.json'}: found format {config.get('format')!r} version "
            f"{config.get('version')}, expected {FORMAT!r} version {VERSION}."
        )
    try:
        return _build(folder, config)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} is damaged, a key is missing or unknown: {error}."
        ) from error


def _build(folder: Path, config: dict[str, Any]) -> Bundle:
    bundle = Bundle(None, None, None, identity=config["identity"])
    kmeans, entropy = folder / "kmeans.safetensors", folder / ENTROPY_FILE
    bundle.kmeans = kmeans if kmeans.is_file() else None
    bundle.entropy = entropy if entropy.is_file() else None
    if config["model"]:
        bundle.streams = StreamSpec.from_dict(config["streams"])
        path = folder / "generator.safetensors"
        with _weights_of(path), safetensors.safe_open(path, "pt") as weights:
            sizes = with_duration_condition(config["model"], weights.keys())
        bundle.model = sizes_class(config["arch"])(**sizes)
        bundle.generator = build_vocoder(bundle.model, bundle.streams)
        bundle.generator.generator.remove_weight_norm()
        _load_weights(path, bundle.generator)
    if config["f0_vqvae"]:
        bundle.f0_model = F0VqvaeSizes(**config["f0_vqvae"])
        bundle.f0_vqvae = F0Vqvae(bundle.f0_model)
        _load_weights(folder / "f0_vqvae.safetensors", bundle.f0_vqvae)
    if config.get("content_vqvae"):
        bundle.content_vqvae = ContentVqvae(**config["content_vqvae"])
        _load_weights(folder / "content_vqvae.safetensors", bundle.content_vqvae)
    return bundle


def _load_weights(path: Path, module: nn.Module) -> None:
    with _weights_of(path):
        module.load_state_dict(load_file(path))
    module.eval()


@contextlib.contextmanager
def _weights_of(path: Path) -> Iterator[None]:
    """Names the file in every error."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the bundle.")
    try:
        yield
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} does not fit the bundle's config.json: {error}") from error


_USE = """
## Use

```bash
pip install fairseq_resynth
resynth synthesize --bundle THIS_FOLDER --input units.txt --outdir OUT{target}
```

```python
from fairseq_resynth import Resynthesizer

resynthesizer = Resynthesizer.from_pretrained("THIS_FOLDER"{encoder})
speech = resynthesizer.encode("speech.wav")
wav = resynthesizer.decode(speech.units[None]{arguments})
```
"""


def model_card(bundle: Bundle, license_name: str = "") -> str:
    """The Markdown of a bundle's README; an empty license is unknown."""
    license_line = f"license: {license_name}\n" if license_name else ""
    arch = arch_of(bundle.model).replace("_", "-") + ", " if bundle.model else ""
    head = (
        f"---\nlibrary_name: fairseq_resynth\npipeline_tag: audio-to-audio\n{license_line}"
        f"tags: [speech, vocoder, {arch}voice-conversion, textless]\n---\n\n"
    )
    if bundle.generator is None:
        return (
            f"{head}# F0 quantizer\n\nPitch at 200 Hz to {bundle.f0_model.num_codes} codes at "
            f"{200 / bundle.f0_vqvae.stride:g} Hz, for `resynth quantize-f0 DATA --bundle THIS_FOLDER`.\n\n"
            f"- Identity: `{bundle.identity}`\n"
        )
    target = " --target NAME" if len(bundle.streams.speakers) > 1 else ""
    feature_type = bundle.streams.units.get("feature_type", "logmel")
    encoder = "" if feature_type in WITHOUT_WEIGHTS else ', content_checkpoint="ENCODER"'
    arguments = _arguments(bundle.streams)
    return head + _facts(bundle) + _USE.format(target=target, encoder=encoder, arguments=arguments)


def _facts(bundle: Bundle) -> str:
    streams = bundle.streams
    parameters = sum(p.numel() for p in bundle.generator.parameters()) / 1e6
    units, layer = streams.units.get("feature_type", "unknown"), streams.units.get("layer")
    layer = "" if layer is None else f", layer {layer}"
    pitch = f"{streams.num_f0_codes} codes at {streams.sample_rate / streams.f0_code_hop:g} Hz"
    if not streams.num_f0_codes:
        pitch = "continuous, 200 Hz" if streams.f0_channels else "none"
    speakers = ", ".join(streams.speakers) or "none (one voice)"
    if streams.speaker_dim:
        speakers = f"any, by a vector of {streams.speaker_dim} dimensions"
    durations = "predicted" if bundle.model.duration_predictor else "as in the units"
    if bundle.generator.durations_need_speaker:
        durations = "predicted, depending on the speaker"
    return f"""# Unit vocoder

Speech at {streams.sample_rate} Hz from discrete units; {parameters:.1f} M parameters.

- Units: {streams.num_units} ({units}{layer}) at {streams.sample_rate / streams.unit_hop:g} Hz
- Pitch: {pitch}
- Durations: {durations}
- Speakers: {speakers}
- Styles: {", ".join(streams.styles) or "none"}
- Identity: `{bundle.identity}`
"""


def _arguments(streams: StreamSpec) -> str:
    """The arguments of `decode` in addition to the units."""
    pitch = ", speech.f0_codes[None]" if streams.num_f0_codes else ""
    if streams.f0_channels:
        pitch = ", f0=speech.f0[None]"
    speaker = ', speaker="NAME"' if streams.speakers else ""
    if streams.speaker_dim:
        speaker = ", speaker=vector"
    return pitch + speaker + (', style="NAME"' if streams.styles else "")
