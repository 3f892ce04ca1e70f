"""Rates, hops and encoder names that hold everywhere. What a model was trained on is in its `StreamSpec`."""

from typing import NamedTuple

SAMPLE_RATE = 16000  # Hz
UNIT_HOP = 320  # samples per content unit of HuBERT and wav2vec 2.0: 50 Hz
F0_HOP = 80  # samples between frames of F0: 200 Hz
F0_RATE = SAMPLE_RATE // F0_HOP  # Hz
F0_CODE_HOP = 1280  # samples per pitch code of the F0 VQ-VAE: 12.5 Hz

SPLITS = ("train", "valid", "test")
# Named tokens: streams with one name per utterance (`{split}.style`), with a table in the model and an option
# of every command that speaks, whose help says what it is. A further one is one line here.
TOKENS = {"style": "speaking style", "language": "spoken language"}


class FeatureType(NamedTuple):
    """One value of `--feature-type`.

    Attributes:
        builder: `FILE:CALLABLE` in encoders/; empty for vqvae, whose weights are in the bundle.
        has_weights: whether the callable takes (weights, layer, device), both of which the user has to give,
            or (device) alone.
    """

    builder: str
    has_weights: bool = True


# Content encoders by the name that --feature-type takes. The command line lists them without loading any.
FEATURE_TYPES = {
    "logmel": FeatureType("frames:LogMelEncoder", has_weights=False),
    "hubert": FeatureType("fairseq_models:HubertEncoder"),
    "w2v2": FeatureType("fairseq_models:Wav2vec2Encoder"),
    "cpc": FeatureType("fairseq_models:CpcEncoder"),
    "hf": FeatureType("huggingface:build_huggingface"),
    "vqvae": FeatureType("", has_weights=False),
}
WITHOUT_WEIGHTS = {name for name, found in FEATURE_TYPES.items() if not found.has_weights}
