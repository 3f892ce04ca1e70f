"""Rates and hops that are the same in every room. What a model was trained on is in its `StreamSpec`."""

SAMPLE_RATE = 16000  # Hz
UNIT_HOP = 320  # samples per content unit of HuBERT and wav2vec 2.0: 50 Hz
F0_HOP = 80  # samples between frames of F0: 200 Hz
F0_RATE = SAMPLE_RATE // F0_HOP  # Hz
F0_CODE_HOP = 1280  # samples per pitch code of the F0 VQ-VAE: 12.5 Hz

# Content encoders by the name that --feature-type takes. The value is the file in encoders/ and what builds
# the encoder from (weights, layer, device); empty for those that `encoders.content` builds without weights.
# The command line lists them without loading any.
FEATURE_TYPES = {
    "logmel": "",
    "hubert": "fairseq_models:HubertEncoder",
    "w2v2": "fairseq_models:Wav2vec2Encoder",
    "cpc": "fairseq_models:CpcEncoder",
    "hf": "huggingface:build_huggingface",
    "vqvae": "",
}
