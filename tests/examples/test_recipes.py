"""Every recipe by its own run.sh, on a small corpus with the layout of the real one."""

import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_corpus import MHUBERT, REPOSITORY, SPEECH

from fairseq_resynth.data.storage.files import read_json

EXAMPLES = REPOSITORY / "examples"
TINY_GENERATOR = (
    "++model.embedding_dim=8 ++model.upsample_initial_channel=32 ++model.resblock_kernel_sizes=3 "
    "++model.resblock_dilation_sizes='1,3' ++criterion.discriminator_width=0.0625"
)
SETTINGS = {
    "CONTENT": "--feature-type logmel",
    "K": "20",
    "OVERRIDES": "dataset.batch_size=4 dataset.num_workers=0 optimization.max_update=2",
    "F0_OVERRIDES": "optimization.max_update=4 ++model.width=8",
    "VOCODER_OVERRIDES": f"{TINY_GENERATOR} ++task.segment_size=2560",
    "DEVICE": "cpu",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}


def clips(count, language="english"):
    return sorted((SPEECH / language).glob("*.flac"))[:count]


def convert(source, target, rate=16000, channels=1):
    wav, found = soundfile.read(source)
    wav = np.repeat(wav, rate // found) if rate > found else wav
    target.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(target, np.stack([wav] * channels, axis=1), rate)


def run_bash(*arguments, **settings):
    """Runs bash where it finds the installed commands, with small settings."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **SETTINGS, "PATH": path, **settings},
    )


def run_recipe(name, *arguments, check=True, **settings):
    done = run_bash(EXAMPLES / name / "run.sh", *arguments, **settings)
    if check and done.returncode:
        raise AssertionError(f"{done.stdout[-3000:]}\n{done.stderr[-4000:]}")
    return done


def wavs(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.wav"))


@pytest.mark.slow
def test_ljspeech(tmp_path):
    for number, clip in enumerate(clips(14)):
        convert(clip, tmp_path / "LJSpeech-1.1" / "wavs" / f"LJ001-{number:04}.wav")
    out = tmp_path / "out"
    run_recipe("ljspeech", out, SOURCE=str(tmp_path / "LJSpeech-1.1"))
    assert set((out / "data" / "train.speaker").read_text().split()) == {"single"}
    assert len(wavs(out / "resynthesized")) == 1
    assert (out / "bundle" / "f0_vqvae.safetensors").is_file()
    again = run_recipe("ljspeech", out, SOURCE=str(tmp_path / "LJSpeech-1.1"))
    assert "14 reused" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["new", "old"])
def test_vctk(layout, tmp_path):
    corpus = tmp_path / "VCTK"
    for speaker, language in (("p225", "english"), ("s5", "french")):
        for number, clip in enumerate(clips(7, language), 1):
            stem = f"{speaker}/{speaker}_{number:03}"
            if layout == "old":
                convert(clip, corpus / "wav48" / f"{stem}.wav")
            else:
                for microphone in ("mic1", "mic2"):
                    name = f"{stem}_{microphone}.flac"
                    convert(clip, corpus / "wav48_silence_trimmed" / name)
    out = tmp_path / "out"
    run_recipe("vctk", out, SOURCE=str(corpus))
    assert set((out / "data" / "train.speaker").read_text().split()) == {"p225", "s5"}
    assert len((out / "data" / "train.tsv").read_text().splitlines()) == 13
    assert "mic1" not in (out / "data" / "train.tsv").read_text()
    own, converted = wavs(out / "resynthesized"), wavs(out / "converted")
    assert len(own) == len(converted) == 1


@pytest.mark.slow
def test_hylee(tmp_path):
    """The layout of the hub: parquet files whose rows contain encoded audio."""
    pytest.importorskip("datasets")
    from pyarrow import Table, parquet

    rows = []
    for number, clip in enumerate(clips(12)):
        convert(clip, tmp_path / "stereo" / f"{number}.wav", 48000, channels=2)
        audio = (tmp_path / "stereo" / f"{number}.wav").read_bytes()
        rows.append({"audio": {"bytes": audio, "path": f"{number}.wav"}})
    (tmp_path / "dataset" / "data").mkdir(parents=True)
    path = tmp_path / "dataset" / "data" / "train-00000-of-00001.parquet"
    parquet.write_table(Table.from_pylist(rows), path)
    out = tmp_path / "out"
    run_recipe("hylee", out, DATASET=str(tmp_path / "dataset"), HF_HOME=str(tmp_path / "hf"))
    assert soundfile.info(out / "audio" / "audio_0_0000.flac").samplerate == 16000
    assert len(wavs(out / "resynthesized")) == 1


@pytest.mark.slow
def test_own_data(tmp_path):
    for language in ("english", "russian"):
        for clip in clips(7, language):
            convert(clip, tmp_path / "mine" / language / clip.name)
    out = tmp_path / "out"
    run_recipe("own_data", tmp_path / "mine", out, PITCH="no")
    assert not (out / "bundle" / "f0_vqvae.safetensors").is_file()
    assert len(wavs(out / "resynthesized")) == 1


@pytest.mark.slow
def test_librilight(tmp_path):
    for speaker, language in (("100", "english"), ("200", "italian")):
        for clip in clips(6, language):
            convert(clip, tmp_path / "small" / speaker / "book_one" / clip.name)
    out = tmp_path / "out"
    tiny = f"{TINY_GENERATOR} ++task.segment_size=3200 ++model.encoder_width=8"
    run_recipe("librilight", out, SOURCE=str(tmp_path / "small"), VQVAE_OVERRIDES=tiny)
    assert len(wavs(out / "resynthesized")) == 1
    assert (out / "bundle" / "content_vqvae.safetensors").is_file()


@pytest.mark.slow
def test_gslm(tmp_path):
    for clip in clips(16):
        convert(clip, tmp_path / "mine" / "english" / clip.name)
    out = tmp_path / "out"
    tiny = (
        "optimization.max_update=20 dataset.batch_size=null ++model.decoder_layers=1 "
        "++model.decoder_embed_dim=32 ++model.decoder_ffn_embed_dim=64 "
        "++model.decoder_attention_heads=2"
    )
    settings = {"LM_OVERRIDES": tiny, "VOCAB": "60"}
    done = run_recipe("gslm", tmp_path / "mine", out, **settings)
    assert len(wavs(out / "samples")) == 1
    assert soundfile.info(out / "resynthesized.wav").duration > 0.5
    assert "times shorter than the units" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("pitch", ["no", "yes"])
def test_lowrate(pitch, tmp_path):
    """From a tiny folder of transformers with the strides of mHuBERT-25 to a vocoder for other loaders."""
    transformers = pytest.importorskip("transformers")
    model = transformers.HubertModel(transformers.HubertConfig(**MHUBERT))
    model.save_pretrained(tmp_path / "mhubert")
    for clip in clips(16):
        convert(clip, tmp_path / "mine" / "english" / clip.name)
    out, content = tmp_path / "out", f"--content-checkpoint {tmp_path / 'mhubert'} --layer 2"
    settings = {"CONTENT": f"--feature-type hf {content}", "PITCH": pitch}
    tiny = SETTINGS["VOCODER_OVERRIDES"].replace("'1,3'", "'1,3,5'")
    run_recipe("lowrate", tmp_path / "mine", out, VOCODER_OVERRIDES=tiny, **settings)
    assert read_json(out / "data" / "units.json")["unit_hop"] == 640
    assert len(wavs(out / "resynthesized")) == 1
    config = read_json(out / "code_hifigan" / "config.json")
    assert config["upsample_rates"] == [5, 4, 4, 4, 2]
    assert ("dur_predictor_params" in config) == (pitch == "no")
    assert config.get("f0_code_hop", 1280) == 1280


def test_missing_corpus_says_what_to_put_where(tmp_path):
    done = run_recipe("vctk", tmp_path / "out", check=False, https_proxy="http://127.0.0.1:9")
    assert done.returncode != 0
    assert "VCTK-Corpus-0.92.zip, then: touch" in done.stderr
    done = run_recipe("own_data", tmp_path / "none", tmp_path / "out", check=False)
    assert "is not a folder: put recordings into one folder per speaker" in done.stderr


def test_once_trains_again_only_what_is_not_finished(tmp_path):
    script = f"""
set -euo pipefail
source {EXAMPLES}/recipe.sh
fake() {{ echo "trained $1" ; touch {tmp_path}/checkpoint_last.pt; [ "$1" != broken ]; }}
for updates in 10 10 20; do once {tmp_path} fake $updates; done
rm {tmp_path}/checkpoint_last.pt
once {tmp_path} fake 20
once {tmp_path} fake broken || true
once {tmp_path} fake broken
echo never
"""
    done = run_bash("-c", script)
    reused = f"reused: {tmp_path}, whose training has finished"
    said = ["trained 10", reused, "trained 20", "trained 20", "trained broken", "trained broken"]
    assert done.stdout.splitlines() == said, done.stderr
    assert done.returncode != 0


def fetch(url, file, digest=""):
    return run_bash("-c", f"source {EXAMPLES}/recipe.sh; fetch '{url}' '{file}' {digest}")


def test_fetch_says_how_much_resumes_and_checks(tmp_path):
    content = os.urandom(200_000)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "corpus.bin").write_bytes(content)
    requests = []

    class Ranges(http.server.SimpleHTTPRequestHandler):
        """Serves the rest of a file, for a download that continues."""

        def do_GET(self):
            requests.append(self.headers.get("Range"))
            start = int((requests[-1] or "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if requests[-1] else 200)
            self.send_header("Content-Length", str(len(content) - start))
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *_):
            pass

    handler = functools.partial(Ranges, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/corpus.bin"
        digest = hashlib.sha256(content).hexdigest()
        target = tmp_path / "corpus.bin"
        target.write_bytes(content[:150_000])  # the start, from an interrupted download
        done = fetch(url, target, digest)
        assert done.returncode == 0, done.stderr
        assert "0 MB to" in done.stdout and target.read_bytes() == content
        assert requests == ["bytes=150000-"]
        assert fetch(url, target, digest).stdout == ""  # the second time nothing is fetched
        wrong = fetch(url, tmp_path / "other.bin", "0" * 64)
        assert wrong.returncode != 0 and "does not have the SHA-256" in wrong.stderr
        assert not (tmp_path / "other.bin.ok").exists()
        server.shutdown()
    gone = fetch("http://127.0.0.1:9/x", tmp_path / "x")
    assert gone.returncode != 0 and "cannot reach" in gone.stderr
