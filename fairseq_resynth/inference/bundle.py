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

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fairseq_resynth.constants import TOKENS, WITHOUT_WEIGHTS
from fairseq_resynth.data.storage import files
from fairseq_resynth.data.storage.messages import one_line
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.inference.hub import ENTROPY_FILE, WEIGHTS, find_bundle
from fairseq_resynth.modules import architectures
from fairseq_resynth.modules.quantizers import ContentVqvae, F0Vqvae, F0VqvaeSizes
from fairseq_resynth.modules.unit_generator import UnitGenerator

FORMAT = "fairseq_resynth bundle"
VERSION = 1


@dataclass
class Bundle:
    """The contents of a bundle; one of an F0 quantizer alone has no generator, model and streams."""

    generator: UnitGenerator | None  # the unit vocoder in evaluation mode
    model: architectures.UnitVocoderSizes | None  # its sizes
    streams: StreamSpec | None  # that it was trained on
    f0_vqvae: F0Vqvae | None = None  # None if the model has no pitch codes of one
    f0_model: F0VqvaeSizes | None = None  # its sizes
    kmeans: Path | None = None  # None if something else makes the units
    identity: str = ""  # 16 hexadecimal digits, a hash of all weights
    content_vqvae: ContentVqvae | None = None  # None if something else makes the units
    entropy: Path | None = None  # the codec's context model


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
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(save(state))  # save_file leaves files of its own if it is killed


def _identity(folder: Path) -> str:
    """The identity of the weights in a folder; empty without any."""
    hashes = [files.file_hash(folder / name) for name in WEIGHTS if (folder / name).is_file()]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16] if hashes else ""


def save_bundle(
    folder: str | Path, bundle: Bundle, license_name: str = "", half: bool = False
) -> str:
    """Writes a bundle and returns its identity; the configuration is last, so that no part can be loaded.

    Nothing of another bundle in the folder stays, except the codec's context model if the weights are the
    same. The weight norm of the generator is folded away. `license_name` is that of the weights, as the
    Hugging Face hub spells it. `half` stores the vocoder's weights in float16, but not those of the F0
    quantizer, whose codes must not change.
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
        files.write_json(speakers, bundle.streams.speaker_statistics)
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
        "arch": architectures.arch_of(bundle.model) if bundle.model else None,
        "model": dataclasses.asdict(bundle.model) if bundle.model else None,
        "f0_vqvae": dataclasses.asdict(bundle.f0_model) if bundle.f0_model else None,
        "content_vqvae": bundle.content_vqvae.arguments if bundle.content_vqvae else None,
        "streams": bundle.streams.to_dict() if bundle.streams else None,
    }
    files.write_text(folder / "README.md", model_card(bundle, license_name))
    files.write_json(folder / "config.json", config)
    if _identity(folder) != bundle.identity:
        raise FileNotFoundError(
            f"{folder} was removed or changed while it was written: run the command again"
        )
    return bundle.identity


def _copy(source: Path, target: Path) -> None:
    if source != target:
        with files.atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def load_bundle(name: str | Path) -> Bundle:
    """Loads a bundle that `find_bundle` finds. Raises FileNotFoundError if it or a file of it is missing,
    ValueError for another format or version, or weights that do not fit the configuration."""
    folder = find_bundle(name)
    path = folder / "config.json"
    hint = "Make a bundle with `resynth export`."
    config = files.read_object(path, hint)
    found = config.get("format"), config.get("version")
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{path}: found format {found[0]!r} version {found[1]}, expected {FORMAT!r} version {VERSION}."
        )
    with files.reading(path, "the configuration of a bundle", hint):
        return _build(folder, config)


def _build(folder: Path, config: dict[str, Any]) -> Bundle:
    bundle = Bundle(None, None, None, identity=config["identity"])
    kmeans, entropy = folder / "kmeans.safetensors", folder / ENTROPY_FILE
    bundle.kmeans = kmeans if kmeans.is_file() else None
    bundle.entropy = entropy if entropy.is_file() else None
    if config["model"]:
        bundle.streams = StreamSpec.from_dict(config["streams"])

        def build(weights: dict[str, Tensor]) -> UnitGenerator:
            sizes = architectures.with_duration_condition(config["model"], weights)
            bundle.model = architectures.sizes_class(config["arch"])(**sizes)
            generator = architectures.build_vocoder(bundle.model, bundle.streams)
            generator.generator.remove_weight_norm()
            return generator

        bundle.generator = _loaded(folder, "generator", build)
    if config["f0_vqvae"]:
        bundle.f0_model = F0VqvaeSizes(**config["f0_vqvae"])
        bundle.f0_vqvae = _loaded(folder, "f0_vqvae", lambda _: F0Vqvae(bundle.f0_model))
    if arguments := config.get("content_vqvae"):
        bundle.content_vqvae = _loaded(folder, "content_vqvae", lambda _: ContentVqvae(**arguments))
    return bundle


def _loaded(folder: Path, name: str, build: Callable[[dict[str, Tensor]], nn.Module]) -> Any:
    """The module that `build` makes for its weights, loaded and in evaluation mode."""
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing from the bundle.")
    try:
        weights = load_file(path)
        module = build(weights)
        module.load_state_dict(weights)
    except (RuntimeError, SafetensorError) as error:
        reason = one_line(error)
        raise ValueError(f"{path} does not fit the bundle's config.json: {reason}") from error
    return module.eval()


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
    arch = architectures.arch_of(bundle.model).replace("_", "-") + ", " if bundle.model else ""
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
    streams = bundle.streams
    target = " --target NAME" if len(streams.speakers) > 1 else ""
    feature_type = streams.units.get("feature_type", "logmel")
    encoder = "" if feature_type in WITHOUT_WEIGHTS else ', content_checkpoint="ENCODER"'
    # Of `decode`, in addition to the units.
    arguments = ", speech.f0_codes[None]" if streams.num_f0_codes else ""
    arguments = ", f0=speech.f0[None]" if streams.f0_channels else arguments
    arguments += ', speaker="NAME"' if streams.speakers and not streams.speaker_dim else ""
    arguments += ", speaker=vector" if streams.speaker_dim else ""
    arguments += "".join(f', {token}="NAME"' for token in streams.tokens)
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
    tokens = "\n".join(
        f"- {token.capitalize()}s: {', '.join(streams.tokens.get(token, ())) or 'none'}"
        for token in TOKENS
    )
    return f"""# Unit vocoder

Speech at {streams.sample_rate} Hz from discrete units; {parameters:.1f} M parameters.

- Units: {streams.num_units} ({units}{layer}) at {streams.sample_rate / streams.unit_hop:g} Hz
- Pitch: {pitch}
- Durations: {durations}
- Speakers: {speakers}
{tokens}
- Identity: `{bundle.identity}`
"""
