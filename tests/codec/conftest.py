"""A small bundle on the embedded speech, with its context model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from codec_models import speech_files
from tiny_voices import STATISTICS

from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.encoders.content import KMeans
from fairseq_resynth.encoders.frames import LogMelEncoder
from fairseq_resynth.inference.bundle import Bundle, save_bundle
from fairseq_resynth.modules.architectures import UnitHifiganSizes, build_vocoder
from fairseq_resynth.modules.quantizers import F0Vqvae, F0VqvaeSizes
from fairseq_resynth.resynthesizer import Resynthesizer

SPEAKERS = ("anna", "boris")


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory) -> Path:
    """HiFi-GAN V1's kernels with few channels, 20 clusters of log-mel, an untrained F0 quantizer."""
    folder = tmp_path_factory.mktemp("codec") / "bundle"
    torch.manual_seed(0)
    encoder = LogMelEncoder()
    wav, _ = load_any_audio(speech_files(9)[-1])
    features = encoder.features([torch.from_numpy(wav)])[0].numpy()
    centroids = features[np.random.default_rng(0).permutation(len(features))[:20]]
    kmeans = KMeans(centroids, encoder.description())
    kmeans.save(folder.parent / "kmeans.safetensors")
    streams = StreamSpec(160, 20, 1280, 20, SPEAKERS, speaker_statistics=STATISTICS)
    model = UnitHifiganSizes(embedding_dim=8, upsample_initial_channel=32)
    f0_model = F0VqvaeSizes(code_dim=8, width=8)
    f0_vqvae = F0Vqvae(f0_model).eval()
    with torch.no_grad():  # a codebook among the encoder's vectors, so that codes differ
        vectors = f0_vqvae.encoder(torch.randn(1, 1, 320))[0].T
        f0_vqvae.quantizer.codebook.copy_(vectors)
    generator = build_vocoder(model, streams).eval()
    save_bundle(
        folder,
        Bundle(generator, model, streams, f0_vqvae, f0_model, folder.parent / "kmeans.safetensors"),
    )
    resynthesizer = Resynthesizer.from_pretrained(folder)
    rows = []
    for path in speech_files(8):
        speech = resynthesizer.encode(path, "anna")
        rows.append(Utterance(speech.units, speech.f0_codes, name=path.stem))
    settings = Settings(20, unit_hop=160, num_f0_codes=20)
    fit_entropy_model(rows, settings, TrainingOptions(hidden_size=0)).save(
        folder / "entropy.safetensors"
    )
    return folder


@pytest.fixture(scope="session")
def codec(bundle_folder) -> SpeechCodec:
    """The codec of that bundle."""
    return SpeechCodec.from_pretrained(bundle_folder)
