"""Metrics of optional packages: each against its package called by hand, and against common sense."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.storage.files import read_json
from fairseq_resynth.evaluation.metrics.catalogue import make_metrics
from fairseq_resynth.evaluation.metrics.intelligibility import load_recognizer, parse_recognizer
from fairseq_resynth.evaluation.metrics.metric import Comparison, Recording
from fairseq_resynth.evaluation.metrics.speaker import load_encoder

SPEECH = Path(__file__).parents[2] / "examples" / "asterisk" / "speech"
CALL = SPEECH / "english" / "call-from.flac"  # "incoming call from"


@pytest.fixture(scope="module")
def wav():
    return soundfile.read(CALL, dtype="float32")[0]


@pytest.fixture(scope="module")
def noisy(wav, tmp_path_factory):
    """Files of the call with noise at 20 and 0 dB below speech."""
    folder = tmp_path_factory.mktemp("noisy")
    noise = np.random.default_rng(0).normal(size=len(wav)) * np.sqrt(np.mean(wav**2))
    for decibel in (20, 0):
        mixed = np.clip(wav + noise * 10 ** (-decibel / 20), -1, 1)
        soundfile.write(folder / f"{decibel}.wav", mixed, 16000)
    soundfile.write(folder / "silence.wav", np.zeros(len(wav)), 16000)
    return folder


def measure(name, generated, reference=CALL, transcript=None, **settings):
    (metric,) = make_metrics(name, settings)
    assert metric.missing() == "" and metric.predicts
    pair = Recording(Path(generated)), Recording(Path(reference)) if reference else None
    return metric.measure(Comparison("call", *pair, transcript))


def test_pesq(wav, noisy):
    pesq = pytest.importorskip("pesq")
    values = [measure("pesq", noisy / f"{decibel}.wav")["pesq_wb"] for decibel in (20, 0)]
    degraded = soundfile.read(noisy / "20.wav", dtype="float32")[0]
    assert values[0] == pytest.approx(pesq.pesq(16000, wav, degraded, "wb"))
    assert measure("pesq", CALL)["pesq_wb"] == pytest.approx(4.644, abs=1e-3)  # P.862.2's highest
    assert 4.6 > values[0] > values[1] >= 1.0
    silent = measure("pesq", noisy / "silence.wav", noisy / "silence.wav")
    assert math.isnan(silent["pesq_wb"]) and "PESQ" in silent["notes"][0]


def test_stoi(wav, noisy):
    pystoi = pytest.importorskip("pystoi")
    degraded = soundfile.read(noisy / "0.wav", dtype="float32")[0]
    values = measure("stoi", noisy / "0.wav")
    assert values["stoi"] == pytest.approx(pystoi.stoi(wav, degraded, 16000))
    assert values["estoi"] == pytest.approx(pystoi.stoi(wav, degraded, 16000, extended=True))
    assert measure("stoi", CALL)["stoi"] == pytest.approx(1)
    assert values["stoi"] < 0.95
    silent = measure("stoi", noisy / "0.wav", noisy / "silence.wav")
    assert math.isnan(silent["stoi"]) and silent["notes"] == ["STOI: too little speech"]


def test_visqol(wav, noisy, tmp_path):
    pytest.importorskip("visqol")
    pytest.importorskip("ai_edge_litert")
    same, good, bad = (
        measure("visqol", path)["visqol"] for path in (CALL, noisy / "20.wav", noisy / "0.wav")
    )
    assert same == pytest.approx(4.5, abs=0.1)  # what the lattice gives for identical speech
    assert same > good + 1 and good > bad >= 1
    soundfile.write(tmp_path / "short.wav", wav[8000:12000], 16000)
    for path in (noisy / "silence.wav", tmp_path / "short.wav"):
        values = measure("visqol", path, path)
        assert math.isnan(values["visqol"]) and values["notes"] == ["ViSQOL: too little speech"]


@pytest.fixture
def nisqa_weights(tmp_path):
    """A tiny NISQA with random weights, saved as the released one is."""
    torch = pytest.importorskip("torch")
    nisqa = pytest.importorskip("torchmetrics.functional.audio.nisqa")
    sizes = {"ms_seg_length": 15, "ms_n_mels": 48, "cnn_c_out_1": 2, "cnn_c_out_2": 2}
    sizes |= {"cnn_c_out_3": 4, "cnn_kernel_size": (3, 3), "cnn_dropout": 0.2, "cnn_fc_out_h": None}
    sizes |= {"cnn_pool_1": [24, 7], "cnn_pool_2": [12, 5], "cnn_pool_3": [6, 3]}
    sizes |= {"td_sa_d_model": 8, "td_sa_nhead": 1, "td_sa_num_layers": 1, "td_sa_h": 8}
    sizes |= {"td_sa_dropout": 0.1, "td_sa_pos_enc": None, "pool_att_h": 8, "pool_att_dropout": 0.1}
    spectrogram = {"ms_n_fft": 4096, "ms_hop_length": 0.01, "ms_win_length": 0.02, "ms_fmax": 20000}
    spectrogram |= {"ms_seg_hop_length": 4, "ms_max_segments": 1300, "ms_sr": None}
    torch.manual_seed(0)
    model = nisqa._NISQADIM(sizes | spectrogram)
    checkpoint = {"args": sizes | spectrogram, "model_state_dict": model.state_dict()}
    torch.save(checkpoint, tmp_path / "nisqa.tar")
    return tmp_path / "nisqa.tar"


def test_nisqa(nisqa_weights, tmp_path, wav):
    clean = measure("nisqa", CALL, None, nisqa=str(nisqa_weights))
    assert list(clean) == [
        f"nisqa_{kind}" for kind in ("mos", "noisiness", "discontinuity", "coloration", "loudness")
    ]
    assert all(map(math.isfinite, clean.values()))
    soundfile.write(tmp_path / "short.wav", wav[:800], 16000)
    short = measure("nisqa", tmp_path / "short.wav", None, nisqa=str(nisqa_weights))
    assert math.isnan(short["nisqa_mos"]) and short["notes"][0].startswith("NISQA: ")


def test_utmosv2(tmp_path, monkeypatch, wav):
    import sys
    from types import ModuleType, SimpleNamespace

    (tmp_path / "fold0.pth").write_bytes(b"weights")
    package = ModuleType("utmosv2")  # an empty spec is enough for it to count as installed
    package.__spec__ = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "utmosv2", package)
    predictor = SimpleNamespace(predict=lambda data, **options: np.abs(data).max(keepdims=True))
    predictor.eval = lambda: predictor
    package.create_model = lambda checkpoint_path: predictor
    score = measure("utmosv2", CALL, None, utmosv2=str(tmp_path / "fold0.pth"))
    assert score == {"utmosv2": pytest.approx(float(np.abs(wav).max()))}


@pytest.mark.parametrize("name", ["utmosv2", "nisqa"])
def test_predictors_without_their_weights(name, tmp_path, monkeypatch):
    (metric,) = make_metrics(name, {})
    assert f"give --{name} FILE" in metric.missing() and "\n" not in metric.missing()
    (metric,) = make_metrics(name, {name: str(tmp_path / "absent")})
    with pytest.raises(FileNotFoundError, match=f"--{name} .*absent does not exist"):
        metric.prepare()
    (tmp_path / "nisqa.tar").write_bytes(b"not what it says")
    (metric,) = make_metrics(name, {name: str(tmp_path / "nisqa.tar")})
    with pytest.raises(ValueError, match=f"--{name} .*nisqa.tar cannot be loaded: "):
        metric.prepare()


def test_dnsmos(wav, noisy):
    pytest.importorskip("onnxruntime")
    dnsmos = pytest.importorskip("speechmos.dnsmos")
    clean, noise = (measure("dnsmos", path, None) for path in (CALL, noisy / "0.wav"))
    expected = dnsmos.run(wav, 16000, return_df=False)
    assert clean["dnsmos_ovrl"] == pytest.approx(expected["ovrl_mos"])
    assert clean["dnsmos_p808"] == pytest.approx(expected["p808_mos"])
    assert all(1 <= noise[kind] < clean[kind] <= 5 for kind in clean)


def test_distillmos(noisy):
    pytest.importorskip("distillmos")
    pytest.importorskip("xls_r_sqa")
    clean, noise = (measure("distillmos", path, None) for path in (CALL, noisy / "0.wav"))
    assert 1 <= noise["distillmos"] < clean["distillmos"] <= 5.2


def test_pocketsphinx_hears_words(noisy):
    pytest.importorskip("pocketsphinx")
    good = measure("wer", CALL, transcript="Incoming call, from...")
    assert good["heard"] == "incoming call from"
    assert good["wer"] == good["cer"] == good["dwer"] == 0
    assert (good["words"], good["reference_words"]) == (3, 3)
    silent = measure("wer", noisy / "silence.wav", transcript="incoming call from")
    assert silent["wer"] == silent["dwer"] == 1
    undefined = measure("wer", CALL, None, transcript="")
    assert math.isnan(undefined["wer"]) and "dwer" not in undefined
    assert undefined["notes"] == ["empty transcript"]


def test_whisper_normalizers(monkeypatch):
    pytest.importorskip("whisper_normalizer")
    from fairseq_resynth.evaluation.metrics import intelligibility

    heard = "Mister colors won't call twenty one, (um) friends"
    monkeypatch.setattr(intelligibility, "load_recognizer", lambda *names: lambda wav: heard)
    said = "Mr. Colours will not call 21 friends."

    def rates(**settings):
        return measure("wer", CALL, transcript=said, **settings)

    assert (rates()["wer"], rates()["words"]) == (1, 7)
    english = rates(normalizer="whisper-english")
    assert (english["wer"], english["words"], english["dwer"]) == (0, 7, 0)
    assert rates(normalizer="whisper-basic")["wer"] == pytest.approx(6 / 7)  # no (um)
    (metric,) = make_metrics("wer", {"normalizer": "whisper-english", "language": "fr"})
    assert "normalizer whisper-english (whisper-normalizer 0." in metric.version()
    with pytest.raises(ValueError, match="--language is fr: use whisper-basic"):
        metric.prepare()
    (metric,) = make_metrics("wer", {"normalizer": "whisper"})
    with pytest.raises(ValueError, match="expected one of basic, whisper-english"):
        metric.prepare()


def test_transcripts_in_the_whole_run(tmp_path, capsys):
    pytest.importorskip("pocketsphinx")
    for name in ("call-from", "conf-nonextended"):
        (tmp_path / f"{name}.flac").write_bytes((CALL.parent / f"{name}.flac").read_bytes())
    (tmp_path / "text").write_text("call-from\tIncoming call for\n")
    command = ["evaluate", "--generated", f"same={tmp_path}", "--reference", str(tmp_path)]
    command += ["--metrics", "wer", "--outdir", str(tmp_path / "r"), "--workers", "1"]
    assert main([*command, "--transcripts", str(tmp_path / "text"), "--audio", "none"]) == 0
    assert "1 references without a transcript: conf-nonextended" in capsys.readouterr().out
    figures = read_json(tmp_path / "r/summary.json")["same"]["all"]
    assert figures["wer"]["mean"] == pytest.approx(1 / 3) and figures["wer"]["count"] == 1
    assert figures["dwer"]["mean"] == 0 and figures["dwer"]["count"] == 2
    (tmp_path / "text").write_text("other\tWords\n")
    assert main([*command, "--transcripts", str(tmp_path / "text")]) == 2
    assert "called like 'other', references like 'call-from'" in capsys.readouterr().err


def test_utmos_by_torch_hub(tmp_path, monkeypatch, wav):
    import torch

    from fairseq_resynth.evaluation.metrics import quality

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (metric,) = make_metrics("utmos", {})
    assert "torch.hub.load('tarepan/SpeechMOS:v1.2.0', 'utmos22_strong'" in metric.missing()
    (tmp_path / "tarepan_SpeechMOS_v1.2.0").mkdir()
    assert metric.missing() == ""
    predictor = torch.nn.Module()
    predictor.forward = lambda wavs, rate: wavs.abs().amax(1) * rate  # (B,), as the real one
    monkeypatch.setattr(quality, "_utmos", lambda device: predictor)
    score = metric.measure(Comparison("call", Recording(CALL)))["utmos"]
    assert score == pytest.approx(float(np.abs(wav).max()) * 16000)


def test_recognizer_names():
    assert parse_recognizer("whisper:/models/base") == ("whisper", "/models/base")
    assert parse_recognizer("ctc:facebook/wav2vec2-base-960h")[0] == "ctc"
    for wrong in ("whisper", "pocketsphinx:en", "kaldi:x"):
        with pytest.raises(ValueError, match="expected pocketsphinx, whisper:NAME"):
            parse_recognizer(wrong)


@pytest.fixture
def ctc_folder(tmp_path):
    """A tiny wav2vec 2.0 CTC model with random weights, saved as users have them."""
    transformers = pytest.importorskip("transformers")
    import json

    vocabulary = {letter: index for index, letter in enumerate(["<pad>", "|", "<unk>", *"abcde"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        str(tmp_path / "vocab.json"), pad_token="<pad>", unk_token="<unk>", word_delimiter_token="|"
    )
    extractor = transformers.Wav2Vec2FeatureExtractor()
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path)
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(vocab_size=len(vocabulary), **tiny_sizes())
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    return tmp_path


def tiny_sizes():
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (16, 20)}
    blocks = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    rest = {
        "intermediate_size": 16,
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
    }
    return {**convolutions, **blocks, **rest}


def test_hugging_face_ctc(ctc_folder, wav):
    import torch
    import transformers

    model = transformers.Wav2Vec2ForCTC.from_pretrained(ctc_folder).eval()
    normalized = (wav - wav.mean()) / np.sqrt(wav.var() + 1e-7)
    with torch.no_grad():
        best = model(torch.from_numpy(normalized[None])).logits[0].argmax(-1).tolist()
    # greedy CTC by hand: join repeats, drop blanks
    kept = [code for i, code in enumerate(best) if code and (i == 0 or code != best[i - 1])]
    letters = ["", " ", "<unk>", *"abcde"]
    expected = "".join(letters[code] for code in kept)
    heard = load_recognizer(f"ctc:{ctc_folder}")(wav)
    assert heard.split() == expected.split() and heard.strip()
    with pytest.raises(ValueError, match="nothing does not exist"):
        load_recognizer(f"ctc:{ctc_folder}/nothing")


def test_hugging_face_xvector(tmp_path, wav):
    transformers = pytest.importorskip("transformers")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    sizes = tiny_sizes() | {"tdnn_dim": (8, 8), "tdnn_kernel": (5, 1), "tdnn_dilation": (1, 1)}
    config = transformers.Wav2Vec2Config(xvector_output_dim=12, **sizes)
    transformers.Wav2Vec2ForXVector(config).save_pretrained(tmp_path)
    vector = load_encoder(f"xvector:{tmp_path}").embed(wav)
    assert vector.shape == (12,) and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_faster_whisper_without_its_model(tmp_path):
    pytest.importorskip("faster_whisper")
    with pytest.raises(ValueError, match="the model cannot be loaded"):
        load_recognizer(f"whisper:{tmp_path}")


@pytest.fixture(scope="module")
def speaker_rows():
    """Rows of three utterances each of three real voices, as they are."""
    pytest.importorskip("resemblyzer")
    (metric,) = make_metrics("speaker", {})
    rows = []
    for voice in ("english", "french", "italian"):
        for path in sorted((SPEECH / voice).glob("*.flac"))[:3]:
            values = metric.measure(Comparison(path.stem, Recording(path), Recording(path)))
            name = {"reference_name": f"{voice}/{path.stem}", "speaker": voice}
            rows.append({**name, "source_speaker": voice, **values})
    return metric, rows


def test_speakers_are_told_apart(speaker_rows):
    metric, rows = speaker_rows
    rows = [dict(row) for row in rows]
    metric.finish(rows)
    assert all(row["reference_similarity"] == pytest.approx(1, abs=1e-4) for row in rows)
    assert all(
        max(row["speaker_scores"], key=row["speaker_scores"].get) == row["speaker"] for row in rows
    )
    assert metric.pooled(rows)["eer"] == 0
    # its own recording is left out of a speaker's enrollment
    own = [np.array(r["embedding"]) for r in rows if r["speaker"] == "english"]
    rest = (own[1] + own[2]) / np.linalg.norm(own[1] + own[2])
    assert rows[0]["speaker_similarity"] == pytest.approx(float(own[0] @ rest), abs=1e-3)


def test_wrong_voices_raise_the_eer(speaker_rows):
    metric, rows = speaker_rows
    voices = ["english", "french", "italian"]
    swapped = [dict(row, speaker=voices[voices.index(row["speaker"]) - 1]) for row in rows]
    metric.finish(swapped)
    assert metric.pooled(swapped)["eer"] > 0.5
    assert np.mean([row["speaker_similarity"] for row in swapped]) < 0.8


def test_enrollment_folder(speaker_rows, tmp_path):
    _, rows = speaker_rows
    for voice in ("english", "french"):
        (tmp_path / voice).mkdir()
        for path in sorted((SPEECH / voice).glob("*.flac"))[3:5]:
            (tmp_path / voice / path.name).write_bytes(path.read_bytes())
    (metric,) = make_metrics("speaker", {"enroll": str(tmp_path)})
    rows = [dict(row) for row in rows if row["speaker"] != "italian"]
    metric.finish(rows)
    assert set(rows[0]["speaker_scores"]) == {"english", "french"}
    assert metric.pooled(rows)["eer"] < 0.2


def test_too_little_voice_is_undefined(tmp_path):
    pytest.importorskip("resemblyzer")
    soundfile.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    noise = np.random.default_rng(0).normal(size=16000) * 1e-3
    soundfile.write(tmp_path / "noise.wav", noise * (np.arange(16000) < 800), 16000)
    for name, reason in (("silence", "silence has no"), ("noise", "too little to tell")):
        values = measure("speaker", CALL, tmp_path / f"{name}.wav")
        assert math.isnan(values["reference_similarity"]) and reason in values["notes"][0]
        assert "embedding" not in values
