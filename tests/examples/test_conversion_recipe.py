"""The conversion recipe with a stand-in for the synthesizer: its plan, resuming, and run.sh itself."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from small_corpus import REPOSITORY
from test_recipes import clips, run_bash, run_recipe, wavs

FOLDER = REPOSITORY / "examples" / "conversion"
VOICES = ["af_anna", "am_adam", "bf_beth"]


@pytest.fixture(scope="module")
def kokoro():
    spec = importlib.util.spec_from_file_location("conversion_kokoro", FOLDER / "kokoro.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sentences(kokoro):
    return kokoro.read_sentences(FOLDER / "sentences.txt")


def counts(train, valid, test):
    return {"train": train, "valid": valid, "test": test}


def test_all_voices_say_the_test_sentences_and_none_of_them_in_training(kokoro, sentences):
    planned = kokoro.plan(sentences, VOICES, counts(5, 2, 3))
    by_split = {split: [u for u in planned if u.name.startswith(split)] for split in sentences}
    assert {split: len(found) for split, found in by_split.items()} == counts(15, 6, 9)
    for voice in VOICES:
        said = [u.text for u in by_split["test"] if u.voice == voice]
        assert said == sentences["test"][:3]
    unseen = {u.text for u in by_split["test"]}
    assert not unseen & {u.text for u in by_split["train"] + by_split["valid"]}
    assert len({u.text for u in by_split["train"]}) == 15  # other sentences for every voice
    assert [u.voice for u in planned[:3]] == VOICES  # in rounds, test first
    assert planned[0].name == "test/af_anna/test_001"
    more = kokoro.plan(sentences, VOICES, counts(6, 2, 3))
    assert set(planned) < set(more)  # files of the smaller plan are reused
    with pytest.raises(ValueError, match="--test 9: expected 1 to 8"):
        kokoro.plan(sentences, VOICES, counts(1, 1, 9))


def test_saying_resumes_and_says_changed_sentences_again(kokoro, tmp_path):
    texts = {split: [f"{split} one", f"{split} two"] for split in ("train", "valid", "test")}
    planned = kokoro.plan(texts, VOICES[:2], counts(1, 1, 1))
    asked = []

    def say(text, voice):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append((text, voice))
        return np.linspace(2.0, 1.0, 2400)

    with pytest.raises(KeyboardInterrupt):
        kokoro.say_all(planned, tmp_path, say)
    assert len(list(tmp_path.rglob("*"))) == 4 + 6  # files, folders; nothing half written
    asked.clear()
    done = kokoro.say_all(planned, tmp_path, say)
    assert (done["written"], done["reused"], done["seconds"]) == (2, 4, 0.2)
    assert asked == [("train one", "af_anna"), ("train two", "am_adam")]
    with soundfile.SoundFile(tmp_path / "test/am_adam/test_001.flac") as file:
        assert (file.samplerate, file.frames, file.title) == (24000, 2400, "test one")
        scaled = file.read()  # not clipped
    assert scaled[[0, -1]] == pytest.approx([1, 0.5], abs=1e-4)
    texts["test"][0] = "another text"
    asked.clear()
    kokoro.say_all(kokoro.plan(texts, VOICES[:2], counts(1, 1, 1)), tmp_path, say)
    assert asked == [("another text", "af_anna"), ("another text", "am_adam")]
    with pytest.raises(
        ValueError, match="test_001: the synthesizer returned silence for 'test one'"
    ):
        kokoro.say_all(planned, tmp_path / "silent", lambda text, voice: np.zeros(0))


def test_mistakes_are_named(kokoro, tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("test\tOne.\ntrain Two.\n")
    with pytest.raises(ValueError, match=r"sentences.txt:2: expected train, valid or test, a tab"):
        kokoro.read_sentences(path)
    path.write_text("test\tOne.\ntrain\tOne.\n")
    with pytest.raises(ValueError, match=r"sentences.txt:2: repeats the sentence of line 1"):
        kokoro.read_sentences(path)
    (tmp_path / "voices").mkdir()
    (tmp_path / "model.onnx").touch()
    for voice in ("af_anna", "bm_bob", "jf_alpha"):
        (tmp_path / "voices" / f"{voice}.bin").touch()
    assert kokoro.find_voices(tmp_path, "") == ["af_anna", "bm_bob"]
    with pytest.raises(ValueError, match="--voices jf_alpha: expected some of af_anna, bm_bob"):
        kokoro.find_voices(tmp_path, "bm_bob,jf_alpha")
    command = [sys.executable, FOLDER / "kokoro.py", tmp_path / "none", tmp_path / "out"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "none contains no Kokoro model: run bash examples/conversion/fetch.sh\n"
    )


@pytest.mark.slow
def test_run(kokoro, tmp_path):
    """From existing speech to the report: recordings stand in for the synthesizer."""
    speech, recordings = tmp_path / "speech", iter(clips(20))
    voices = VOICES[:2]
    sentences = kokoro.read_sentences(FOLDER / "sentences.txt")
    planned = kokoro.plan(sentences, voices, counts(6, 1, 2))
    kokoro.write_lists(planned, speech)
    kokoro.say_all(planned, speech, lambda text, voice: soundfile.read(next(recordings))[0])
    settings = {
        "SPEECH": str(speech),
        "VOCODER_OVERRIDES": "model._name=unit_vocos_small ++model.dim=16 "
        "++model.intermediate_dim=32 ++model.num_layers=1",
        "RECOGNIZER": "pocketsphinx",
        "METRICS": "f0,wer,units,rate",
        "BASELINES": "",
        "TARGETS": "1",
    }
    out = tmp_path / "out"
    run_recipe("conversion", out, **settings)
    assert wavs(out / "converted") == [
        "test/af_anna/test_001_am_adam.wav",
        "test/af_anna/test_002_am_adam.wav",
        "test/am_adam/test_001_af_anna.wav",
        "test/am_adam/test_002_af_anna.wav",
    ]
    table = (out / "report" / "summary.csv").read_text()
    assert "conversion" in table and "resynthesis" in table and "bits_per_second" in table


@pytest.mark.slow
def test_any_to_any(kokoro, tmp_path):
    """From existing speech to the report on voices that the training has not heard."""
    speech, recordings = tmp_path / "speech", iter(clips(20))
    sentences = kokoro.read_sentences(FOLDER / "sentences.txt")
    planned = kokoro.plan(sentences, VOICES[:2], counts(4, 1, 1))
    kokoro.write_lists(planned, speech)
    kokoro.say_all(planned, speech, lambda text, voice: soundfile.read(next(recordings))[0])
    asterisk = tmp_path / "asterisk"
    lists = {"train": [], "valid": [], "test": []}
    for split, clip in zip(["train"] * 4 + ["valid", "test"], clips(6, "italian"), strict=True):
        copied = asterisk / "g722" / "italian" / clip.name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, copied)
        lists[split].append(f"italian/{clip.name}\t16000\n")
    (asterisk / "data").mkdir()
    for split, rows in lists.items():
        (asterisk / "data" / f"{split}.tsv").write_text("/nowhere\n" + "".join(rows))
    for clip in clips(12, "russian"):
        target = tmp_path / "unheard" / "tuxpaint_ru" / clip.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)
    out = tmp_path / "out"
    settings = {
        "SPEECH": str(speech),
        "UNHEARD": str(tmp_path / "unheard"),
        "MINUTES": "100",
        "RECOGNIZER": "pocketsphinx",
        "VOCODER_OVERRIDES": "++model.dim=16 ++model.intermediate_dim=16 ++model.num_layers=1 "
        "++task.segment_size=2560 criterion.discriminator_width=0.0625",
    }
    done = run_bash(FOLDER / "any_to_any.sh", out, asterisk, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]
    assert wavs(out / "converted") == [
        "tuxpaint_ru/test/af_anna/test_001.wav",
        "tuxpaint_ru/test/am_adam/test_001.wav",
    ]
    assert set((out / "data" / "train.speaker").read_text().split()) == {
        "af_anna",
        "am_adam",
        "italian",
    }
    assert "eer" in (out / "report_unheard" / "summary.csv").read_text()
    assert (out / "report_heard" / "index.html").is_file()
    assert "figures are missing" not in done.stdout
