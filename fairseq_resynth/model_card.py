"""The README of a bundle, with the metadata that the Hugging Face hub reads."""

from typing import Any

from fairseq_resynth.data.features import WITHOUT_WEIGHTS

_USE = """
## Use

```bash
pip install fairseq_resynth
resynth synthesize --path THIS_FOLDER --input units.txt --outdir OUT{speaker}
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
        bundle: `fairseq_resynth.bundle.Bundle`, with its identity.
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
            f"{200 / bundle.f0_vqvae.stride:g} Hz, for `resynth quantize-f0 DATA --path THIS_FOLDER`.\n\n"
            f"- Identity: `{bundle.identity}`\n"
        )
    speaker = " --speaker NAME" if len(bundle.streams.speakers) > 1 else ""
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
