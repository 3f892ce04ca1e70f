"""HuBERT, wav2vec 2.0 and CPC checkpoints of the released layouts against GSLM's own readers."""

import numpy as np
import pytest
import soundfile
import torch
from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained.cpc_feature_reader import (
    CpcFeatureReader,
)
from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained.hubert_feature_reader import (
    HubertFeatureReader,
)
from fairseq.examples.textless_nlp.gslm.speech2unit.pretrained.w2v2_feature_reader import (
    Wav2VecFeatureReader,
)
from tiny_checkpoints import save_cpc, save_hubert, save_wav2vec2

from fairseq_resynth.encoders.fairseq_models import (
    CpcEncoder,
    HubertEncoder,
    Wav2vec2Encoder,
    fairseq_classes,
)

LENGTHS = (16000, 12800, 9001, 401)


@pytest.fixture(scope="module")
def wavs(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("wavs"), np.random.default_rng(0)
    found = {}
    for length in LENGTHS:
        wav = np.cumsum(generator.normal(0, 0.02, length)).astype(np.float32) % 1 - 0.5
        soundfile.write(folder / f"{length}.wav", wav, 16000)
        wav = soundfile.read(folder / f"{length}.wav", dtype="float32")[0]
        found[folder / f"{length}.wav"] = torch.from_numpy(wav)
    return found


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {
        f"hubert-{kind}": save_hubert(folder / f"{kind}.pt", kind) for kind in ("dict", "omegaconf")
    }
    paths["hubert-namespace"] = save_hubert(folder / "namespace.pt", "namespace")
    paths["hubert-large"] = save_hubert(
        folder / "large.pt",
        "dict",
        normalize=True,
        extractor_mode="layer_norm",
        layer_norm_first=True,
    )
    paths["w2v2-namespace"] = save_wav2vec2(folder / "w2v2.pt")
    paths["w2v2-cfg"] = save_wav2vec2(folder / "w2v2_cfg.pt", "cfg")
    paths["cpc"] = save_cpc(folder / "cpc.pt")
    return paths


CASES = {
    "hubert-dict": (HubertEncoder, HubertFeatureReader, 2),
    "hubert-omegaconf": (HubertEncoder, HubertFeatureReader, 3),
    "hubert-namespace": (HubertEncoder, HubertFeatureReader, 1),
    "hubert-large": (HubertEncoder, HubertFeatureReader, 2),
    "w2v2-namespace": (Wav2vec2Encoder, Wav2VecFeatureReader, 1),
    "cpc": (CpcEncoder, CpcFeatureReader, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_features_equal_the_readers_and_do_not_depend_on_the_batch(name, checkpoints, wavs):
    encoder_class, reader_class, layer = CASES[name]
    encoder = encoder_class(checkpoints[name], layer)
    with torch.serialization.safe_globals(fairseq_classes()):
        reader = reader_class(str(checkpoints[name]), layer, use_cuda=False)
    together = encoder.features(list(wavs.values()))
    for (path, wav), batched in zip(wavs.items(), together, strict=True):
        with torch.inference_mode():
            expected = reader.get_feats(path)
        alone = encoder.features([wav])[0]
        assert torch.equal(alone, expected)
        assert len(alone) == encoder.num_frames(len(wav))
        torch.testing.assert_close(batched, alone, atol=2e-5, rtol=0)  # features are of order 1


def test_wav2vec2_with_a_later_configuration(checkpoints, wavs):
    old, new = (Wav2vec2Encoder(checkpoints[f"w2v2-{kind}"], 1) for kind in ("namespace", "cfg"))
    wav = next(iter(wavs.values()))
    assert torch.equal(old.features([wav])[0], new.features([wav])[0])


def test_frame_counts(checkpoints):
    hubert, cpc = HubertEncoder(checkpoints["hubert-dict"], 1), CpcEncoder(checkpoints["cpc"], 1)
    assert (hubert.unit_hop, hubert.min_samples, cpc.unit_hop) == (320, 400, 160)
    assert [hubert.num_frames(n) for n in (399, 400, 1280, 12800)] == [0, 1, 3, 39]  # n/320 - 1
    assert [cpc.num_frames(n) for n in (158, 159, 1280, 64000)] == [0, 1, 8, 400]


@pytest.mark.parametrize("tail", [0, 1, 399, 7000])
def test_long_files_lose_no_frame(tail, checkpoints):
    """GSLM's reader loses one at each seam and crashes on a tail of under 400 samples."""
    wav = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, 30000 + tail).astype(np.float32))
    whole = HubertEncoder(checkpoints["hubert-large"], 2)
    cut = HubertEncoder(checkpoints["hubert-large"], 2, max_chunk=10000, context=3200)
    found, expected = cut.features([wav])[0], whole.features([wav])[0]
    assert len(found) == len(expected) == whole.num_frames(len(wav))
    # Convolutions that normalize by frame give frames of the right place: cosine near 1, and not beside it.
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(found, expected).mean() > 0.99
    assert cosine(found[1:], expected[:-1]).mean() < 0.9


def test_cpc_of_a_long_file_equals_the_whole(checkpoints):
    """GSLM's reader resets the LSTM every 64 000 samples and encodes a long file twice."""
    wav = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, 70123).astype(np.float32))
    whole = CpcEncoder(checkpoints["cpc"], 2).features([wav])[0]
    cut = CpcEncoder(checkpoints["cpc"], 2, chunk_frames=50).features([wav])[0]
    assert len(whole) == len(cut) == 438
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "encoder", "layer", "message"),
    [
        ("hubert-dict", HubertEncoder, 0, "--layer is 0, .*dict.pt has layers 1 to 3"),
        ("hubert-dict", HubertEncoder, -1, "has layers 1 to 3"),
        ("w2v2-cfg", Wav2vec2Encoder, 3, "has layers 0 to 2"),
        ("cpc", CpcEncoder, 3, "has 2 LSTM layers, counted from 1"),
        (
            "w2v2-cfg",
            HubertEncoder,
            1,
            "holds a wav2vec2 of task audio_pretraining, expected a pretrained hub",
        ),
        ("cpc", HubertEncoder, 1, "holds no `model`; found weights, config"),
        (
            "hubert-dict",
            CpcEncoder,
            1,
            "dict.pt holds fairseq.data.dictionary.Dictionary, which a CPC",
        ),
    ],
)
def test_wrong_layers_and_checkpoints_are_refused(name, encoder, layer, message, checkpoints):
    with pytest.raises(ValueError, match=message):
        encoder(checkpoints[name], layer)
