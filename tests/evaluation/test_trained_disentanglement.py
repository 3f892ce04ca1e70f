"""The paper's Tables 1 and 2 on the trained bundle of the Asterisk voices and prompts that it never heard.

Their units, by Whisper's encoder, are in examples/asterisk/held_out, so that voice, melody and rhythm are
measured without its weights; WHISPER=FOLDER (openai/whisper-base) adds the content, by the slow test.
"""

import os

import numpy as np
import pytest
from small_corpus import REPOSITORY, SPEECH

from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.encoders.speaker import load_encoder
from fairseq_resynth.evaluation.disentanglement import DisentanglementTest
from fairseq_resynth.resynthesizer import Resynthesizer

BUNDLE = REPOSITORY / "examples" / "asterisk" / "bundle"
HELD_OUT = REPOSITORY / "examples" / "asterisk" / "held_out"
PERSONS = ("english", "french", "italian", "russian")  # Spanish is the English speaker again


def names():
    """The paths of the held-out prompts below the folder of all."""
    return [line.split("\t")[0] for line in (HELD_OUT / "test.tsv").read_text().splitlines()[1:]]


def prompts():
    """(voice, (T,) samples, units) of each prompt that the model was not trained on."""
    units = (HELD_OUT / "test.units").read_text().splitlines()
    for name, line in zip(names(), units, strict=True):
        wav, _ = load_any_audio(SPEECH / name)
        yield name.split("/")[0], wav, np.array(line.split(), np.int64)


def enroll(embed):
    """{voice: mean vector} of recordings other than the held-out ones."""
    held_out = set(names())
    means = {}
    for voice in PERSONS:
        paths = [path for path in sorted((SPEECH / voice).glob("*.flac"))]
        known = [path for path in paths if f"{voice}/{path.name}" not in held_out][:8]
        mean = np.mean([embed(load_any_audio(path)[0]) for path in known], axis=0)
        means[voice] = mean / np.linalg.norm(mean)
    return means


def test_voice_melody_and_rhythm_change_one_at_a_time(monkeypatch):
    pytest.importorskip("resemblyzer")
    embed = load_encoder("resemblyzer").embed
    system = Resynthesizer.from_pretrained(BUNDLE, decode_only=True)
    test = DisentanglementTest(system, enroll(embed), embed, content=False)
    for voice, wav, units in prompts():
        monkeypatch.setattr(system, "units", lambda wav, units=units: units)
        test.add(wav, voice)
    result = test.result()
    assert len(result["checks"]) == 5 and all(result["checks"].values()), result
    figures = result["figures"]
    assert figures["eer"] < 0.35 and figures["target_nearer"] > 0.75
    assert figures["similarity"] > 0.75


@pytest.mark.slow
def test_the_units_stay_too():
    folder = os.environ.get("WHISPER")
    if not folder:
        pytest.skip("WHISPER is not set: the folder of openai/whisper-base")
    embed = load_encoder("resemblyzer").embed
    system = Resynthesizer.from_pretrained(BUNDLE, folder)
    test = DisentanglementTest(system, enroll(embed), embed)
    for voice, wav, units in prompts():
        assert np.mean(system.units(wav) == units) > 0.98
        test.add(wav, voice)
    result = test.result()
    assert len(result["checks"]) == 7 and all(result["checks"].values()), result
