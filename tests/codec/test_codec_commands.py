"""The codec's commands: files, folders, archives, pipes, and mistakes in one line."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from codec_models import DATA, speech_files

from fairseq_resynth.cli.main import main
from fairseq_resynth.codec.folders import Archive, write_archive
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.data.audio.pcm import sinc_resample
from fairseq_resynth.encoders.content import KMeans, load_kmeans


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Three recordings in folders named after their speakers, the third as a stereo wav at 22.05 kHz."""
    folder = tmp_path_factory.mktemp("recordings")
    for index, path in enumerate(speech_files(3)):
        target = folder / ("anna", "boris", "boris")[index]
        target.mkdir(exist_ok=True)
        if index < 2:
            shutil.copy(path, target / f"{index}.flac")
        else:
            wav = np.random.default_rng(0).normal(0, 0.1, (22050, 2))
            soundfile.write(target / "2.wav", wav, 22050)
    return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_file_there_and_back(capsys, bundle_folder, codec, recordings, tmp_path):
    source, coded, wav = recordings / "anna" / "0.flac", tmp_path / "0.rsyn", tmp_path / "0.wav"
    options = ["--bundle", bundle_folder]
    assert run(capsys, "encode", source, "-o", coded, "--speaker", "anna", *options)[0] == 0
    assert coded.read_bytes() == codec.encode(source, "anna")
    assert run(capsys, "decode", coded, "-o", wav, *options)[0] == 0
    found, rate = soundfile.read(wav)
    assert rate == 16000 and len(found) == soundfile.info(source).frames
    expected = codec.decode(coded.read_bytes())
    np.testing.assert_allclose(found, np.clip(expected, -1, 1), atol=1e-4)
    for extra in (["--target", "boris"], ["--pitch", "+3"], ["--rate", "1.25"]):
        assert run(capsys, "decode", coded, "-o", tmp_path / "x.wav", *options, *extra)[0] == 0
        changed = soundfile.read(tmp_path / "x.wav")[0]
        assert len(changed) != len(found) or np.abs(changed - found).max() > 1e-4


def test_decoding_needs_no_weights_of_the_content_encoder(
    capsys, bundle_folder, codec, recordings, tmp_path
):
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle")
    kmeans = load_kmeans(bundle / "kmeans.safetensors")
    KMeans(kmeans.centroids, kmeans.description | {"feature_type": "hf", "layer": 4}).save(
        bundle / "kmeans.safetensors"
    )
    source, options = recordings / "anna" / "0.flac", ["--bundle", bundle]
    status, _, errors = run(capsys, "encode", source, "-o", tmp_path / "0.rsyn", *options)
    assert (status, errors) == (
        2,
        "resynth encode: error: the units are of hf, layer 4: give its weights, "
        "--content-checkpoint PATH or content_checkpoint=… in Python.\n",
    )
    without = SpeechCodec.from_pretrained(bundle, decode_only=True)
    coded = without.pack(codec.resynthesizer.encode(source, "anna"))
    (tmp_path / "0.rsyn").write_bytes(coded)
    wav = tmp_path / "0.wav"
    assert run(capsys, "decode", tmp_path / "0.rsyn", "-o", wav, *options)[0] == 0
    expected = codec.decode(codec.encode(source, "anna"))
    np.testing.assert_allclose(soundfile.read(wav)[0], np.clip(expected, -1, 1), atol=1e-4)
    status, table, _ = run(capsys, "inspect", tmp_path / "0.rsyn", *options)
    assert status == 0 and "content units" in table


def test_folder_is_reused_and_failures_are_named(capsys, bundle_folder, recordings, tmp_path):
    broken = tmp_path / "in"
    shutil.copytree(recordings, broken)
    (broken / "anna" / "bad.wav").write_bytes(b"RIFFnonsense")
    command = ["encode", broken, "-o", tmp_path / "out", "--bundle", bundle_folder, "--json"]
    status, out, _ = run(capsys, *command, "--speaker-from-folder")
    first = json.loads(out)
    assert status == 1 and first["written"] == 3 and list(first["failed"])[0].endswith("bad.wav")
    again = json.loads(run(capsys, *command, "--speaker-from-folder")[1])
    assert (again["written"], again["reused"], again["bytes"]) == (0, 3, first["bytes"])
    (tmp_path / "out" / "anna" / "0.rsyn").write_bytes(b"")
    command = [
        "decode",
        tmp_path / "out",
        "-o",
        tmp_path / "wav",
        "--bundle",
        bundle_folder,
        "--json",
    ]
    status, out, _ = run(capsys, *command)
    assert status == 1 and json.loads(out)["written"] == 2
    assert json.loads(out)["failed"] == {"anna/0": "the file is empty"}
    assert (tmp_path / "wav" / "boris" / "2.wav").is_file()
    again = json.loads(run(capsys, *command)[1])
    assert (again["written"], again["reused"], again["bytes"]) == (
        0, 2, json.loads(out)["bytes"]
    )  # fmt: skip
    again = json.loads(run(capsys, *command, "--rate", "2")[1])
    assert (again["written"], again["reused"]) == (2, 0)


def test_encoding_depends_on_speaker_blocks_and_content(
    capsys, bundle_folder, recordings, tmp_path
):
    source = shutil.copytree(recordings, tmp_path / "in")
    command = ["encode", source, "-o", tmp_path / "out", "--bundle", bundle_folder, "--json"]

    def encode(*options):
        done = json.loads(run(capsys, *command, *options)[1])
        return done["written"], done["reused"]

    assert encode("--speaker", "anna") == (3, 0)
    assert encode("--speaker", "boris") == (3, 0)
    assert encode("--speaker", "boris", "--block", "0.5") == (3, 0)
    assert encode("--speaker", "boris", "--block", "0.5") == (0, 3)
    path = source / "anna" / "0.flac"
    wav, rate = soundfile.read(path)
    soundfile.write(path, wav[::-1], rate)
    os.utime(path, (0, 0))  # older than the output
    assert encode("--speaker", "boris", "--block", "0.5") == (1, 2)


def test_file_that_cannot_be_written_is_named_and_the_rest_goes_on(
    capsys, bundle_folder, recordings, tmp_path
):
    options, coded, wavs = ["--bundle", bundle_folder, "--json"], tmp_path / "coded", tmp_path / "w"
    for folder in (coded, wavs):
        folder.mkdir()
        (folder / "anna").write_text("a file where the folder anna has to be")
    status, out, _ = run(capsys, "encode", recordings, "-o", coded, *options, "--speaker", "anna")
    found = json.loads(out)
    assert status == 1 and found["written"] == 2
    assert [Path(name).name for name in found["failed"]] == ["0.flac"]
    assert "exists" in found["failed"][str(recordings / "anna" / "0.flac")]
    (coded / "anna").unlink()
    assert run(capsys, "encode", recordings, "-o", coded, *options, "--speaker", "anna")[0] == 0
    status, out, _ = run(capsys, "decode", coded, "-o", wavs, *options)
    found = json.loads(out)
    assert status == 1 and found["written"] == 2 and list(found["failed"]) == ["anna/0"]


def test_archive_pays_once_and_is_read_by_name(capsys, bundle_folder, codec, recordings, tmp_path):
    archive, options = tmp_path / "all.rsyna", ["--bundle", bundle_folder]
    status, *_ = run(capsys, "encode", recordings, "-o", archive, *options, "--speaker", "anna")
    assert status == 0
    opened = Archive(archive, codec.identity)
    assert opened.names == ["anna/0", "boris/1", "boris/2"]
    for name, data in opened:
        path = next(recordings.glob(f"{name}.*"))
        single = codec.encode(path, "anna")
        assert len(data) == len(single) - 3
        np.testing.assert_array_equal(codec.decode(data, checksum=False), codec.decode(single))
    status, out, _ = run(capsys, "inspect", archive, *options, "--json")
    assert json.loads(out)["names"] == opened.names
    wav = tmp_path / "one.wav"
    assert run(capsys, "decode", archive, "--name", "boris/1", "-o", wav, *options)[0] == 0
    assert len(soundfile.read(wav)[0]) == soundfile.info(recordings / "boris" / "1.flac").frames
    status, _, err = run(capsys, "decode", archive, "--name", "no", "-o", wav, *options)
    assert status == 2 and "no member 'no'; it holds anna/0" in err


def test_an_interrupted_archive_keeps_what_was_encoded(
    capsys, bundle_folder, recordings, monkeypatch, tmp_path
):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    command = [
        "encode",
        recordings,
        "-o",
        tmp_path / "all.rsyna",
        "--bundle",
        bundle_folder,
        "--json",
    ]
    with monkeypatch.context() as patch:
        patch.setattr("fairseq_resynth.codec.folders.write_archive", interrupt)
        run(capsys, *command, "--speaker", "anna")
    status, out, _ = run(capsys, *command, "--speaker", "anna")
    found = json.loads(out)
    assert status == 0 and found["written"] == 0 and found["reused"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["all.rsyna"]


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "a.rsyna"
    write_archive(path, bytes(16), [("a", b"\xb0\0\0abcchk"), ("b", b"\xb0\0\0dchk")])
    data = path.read_bytes()
    assert dict(Archive(path)) == {"a": b"\xb0\0\0abc", "b": b"\xb0\0\0d"}
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(changed[: rng.integers(len(data))] if rng.random() < 0.3 else changed)
        with pytest.raises(CodecError):
            Archive(path, bytes(16))
    with pytest.raises(ValueError, match="cannot hold the name"):
        write_archive(path, bytes(16), [("a", b"1234567"), ("a", b"1234567")])


def test_pipes_stream_in_both_directions(bundle_folder, codec, recordings, tmp_path):
    wav, rate = soundfile.read(recordings / "boris" / "1.flac", dtype="int16")
    program = [str(Path(sys.executable).with_name("resynth"))]
    options = ["--stream", "--bundle", str(bundle_folder), "-o", "-", "--speaker", "boris"]
    coded = subprocess.run(program + ["encode", *options], input=wav.tobytes(), capture_output=True)
    assert coded.returncode == 0, coded.stderr
    assert coded.stdout == codec.encode_blocks(wav.astype(np.float32) / 32768, "boris", 1.0)
    said = subprocess.run(program + ["decode", *options], input=coded.stdout, capture_output=True)
    assert said.returncode == 0, said.stderr
    found = np.frombuffer(said.stdout, "<i2") / 32768
    expected = np.clip(codec.decode(coded.stdout), -1, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_broken_pipe_is_one_line(capsys, bundle_folder, codec, recordings, monkeypatch, tmp_path):
    data = codec.encode(recordings / "anna" / "0.flac", "anna")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data[:-5])))
    command = ["decode", "--stream", "--bundle", bundle_folder, "-o", tmp_path / "out.raw"]
    (tmp_path / "out.raw").write_bytes(b"before")
    status, _, err = run(capsys, *command)
    assert status == 2 and "error: the file is" in err and err.strip().count("\n") == 0
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_a_wav_of_another_rate_is_resampled_on_the_pipe(
    capsys, bundle_folder, codec, recordings, monkeypatch, tmp_path
):
    wav, _ = soundfile.read(recordings / "boris" / "1.flac", dtype="float32")
    wav = resample(wav, 16000, 48000)
    soundfile.write(tmp_path / "a.wav", wav, 48000, "FLOAT")
    data = (tmp_path / "a.wav").read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    command = ["encode", "--stream", "--bundle", bundle_folder, "-o", tmp_path / "a.rsyn"]
    assert run(capsys, *command)[0] == 0
    assert (tmp_path / "a.rsyn").read_bytes() == codec.encode_blocks(sinc_resample(wav, 48000))


def test_inspect_counts_every_bit(capsys, bundle_folder, codec, recordings, tmp_path):
    path = tmp_path / "a.rsyn"
    path.write_bytes(codec.encode(recordings / "anna" / "0.flac", "anna"))
    plot = tmp_path / "bits.png"
    options = ["--bundle", bundle_folder, "--plot", plot]
    summary = json.loads(run(capsys, "inspect", path, *options, "--json")[1])
    assert sum(summary["bits"].values()) == pytest.approx(8 * summary["bytes"], abs=0.1)
    assert summary["speaker"] == 0 and summary["bits"]["speaker"] == 8
    # below 0 where the shortest bytes end in zeros, which are not written
    assert -8 < summary["bits"]["rounding to bytes"] < 9
    assert plot.stat().st_size > 5000
    table = run(capsys, "inspect", path, *options)[1]
    assert "pitch codes" in table and "bit/s" in table
    plain = json.loads(run(capsys, "inspect", path, "--json")[1])
    assert plain["model"] == codec.identity.hex()[:4] and plain["speaker"] == 0 and plain["f0"]
    assert plain["stream_bytes"] == summary["bytes"] - 7


def test_fit_and_bench_on_plain_unit_files(capsys, tmp_path):
    lines = (DATA / "vctk_hubert100.txt").read_text().splitlines()
    (tmp_path / "a.txt").write_text("\n".join(lines[:80]))
    rows = [line.split("|") for line in lines[80:110]]
    dicts = [str({"audio": f"x/{n}.wav", "hubert": u, "duration": 1.0}) for n, u in rows]
    (tmp_path / "b.txt").write_text("\n".join(dicts))
    codes = [" ".join(["3"] * -(-len(u.split()) // 4)) for _, u in rows]
    (tmp_path / "b.f0").write_text("\n".join(codes))
    model = tmp_path / "m.safetensors"
    status, out, _ = run(
        capsys,
        "fit-codec",
        tmp_path / "a.txt",
        "--out",
        model,
        "--network",
        0,
        "--num-f0-codes",
        20,
        "--json",
    )
    fitted = json.loads(out)
    assert status == 0 and fitted["num_units"] == 100 and fitted["utterances"] == 80
    status, out, _ = run(capsys, "codec-bench", tmp_path / "b.txt", "--model", model, "--json")
    found = json.loads(out)
    assert found["identity"] == fitted["identity"] and len(found["files"]) == 30
    for row, (name, units) in zip(found["files"], rows, strict=True):
        assert row["name"] == name and row["seconds"] == len(units.split()) / 50
        assert row["total_bytes"] == row["content_bytes"] + row["f0_bytes"] + row["overhead_bytes"]
        assert row["total_bps"] == pytest.approx(8 * row["total_bytes"] / row["seconds"], abs=1e-3)
        assert row["f0_bytes"] > 0 and row["overhead_bytes"] <= 8
    total = sum(row["total_bytes"] for row in found["files"])
    assert found["total_bps"] == pytest.approx(8 * total / found["seconds"], rel=1e-3)
    assert found["content_bps"] < 150
    assert min(found["encode_times_real_time"], found["decode_times_real_time"]) > 0


def test_network_is_fitted_by_default(capsys, tmp_path):
    model = tmp_path / "m.safetensors"
    lines = (DATA / "vctk_hubert100.txt").read_text().splitlines()
    (tmp_path / "a.txt").write_text("\n".join(lines[:40]))
    status, out, _ = run(
        capsys, "fit-codec", tmp_path / "a.txt", "--out", model, "--updates", 5, "--json"
    )
    assert status == 0 and json.loads(out)["network"] == 256
    (tmp_path / "b.txt").write_text("\n".join(lines[40:50]))
    found = json.loads(
        run(capsys, "codec-bench", tmp_path / "b.txt", "--model", model, "--json")[1]
    )
    assert len(found["files"]) == 10 and found["content_bps"] < 170


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["fit-codec", "none.txt", "--out", "m"], "none.txt does not exist"),
        (["fit-codec", "{units}", "--out", "m", "--num-units", "5"], "expected at most 4"),
        (["codec-bench", "{units}", "--model", "none"], "fit-codec"),
        (["encode", "a.wav", "-o", "b", "--bundle", "nowhere"], "nowhere"),
        (["encode", "a.wav", "-o", "b"], "--bundle B is missing"),
        (["codec-bench", "{units}", "--model", "m", "-n", "-1"], "-n is -1, expected 0 (all)"),
        (["inspect", "{units}"], "not a .rsyn file"),
        (["inspect", "{bundle}", "--bundle", "{bundle}"], "is a folder: give one of its files"),
        (["fit-codec", "{units}", "--out", "m", "--threads", "0"], "--threads is 0, expected 1"),
        (["encode", "-o", "b", "--bundle", "{bundle}"], "give an input, or --stream"),
        (["encode", "a.wav", "-o", "b.rsyn", "--bundle", "{bundle}"], "a.wav does not exist"),
        (["decode", "{units}", "-o", "b.wav", "--bundle", "{bundle}"], "not a .rsyn file"),
        (["decode", "{bundle}", "-o", "b", "--bundle", "{bundle}"], "no *.rsyn files"),
        (
            ["decode", "{units}", "-o", "b", "--bundle", "{bundle}", "--name", "x"],
            "a member of an archive",
        ),
        (
            ["decode", "--stream", "-o", "-", "--bundle", "{bundle}", "--rate", "2"],
            "leave --stream out",
        ),
        (
            ["decode", "a.rsynp", "-o", "b", "--bundle", "{bundle}", "--gap", "hold"],
            "give --conceal",
        ),
        (
            ["decode", "a.rsynp", "-o", "b", "--bundle", "{bundle}", "--window", "3"],
            "with --stream",
        ),
    ],
)
def test_mistakes_are_one_line(capsys, bundle_folder, arguments, reason):
    places = {"units": DATA / "lj_hubert100.txt", "bundle": bundle_folder}
    status, _, err = run(capsys, *[argument.format(**places) for argument in arguments])
    assert status == 2 and reason in err and err.strip().count("\n") == 0


def test_rate_against_distortion_beside_other_codecs(capsys, bundle_folder, recordings, tmp_path):
    command = [
        "codec-bench",
        recordings,
        "--bundle",
        bundle_folder,
        "--outdir",
        tmp_path,
        "-n",
        "2",
    ]
    anchors = ["--anchors", "opus:6,opus:12,codec2:700"]
    status, out, _ = run(capsys, *command, *anchors, "--json")
    points = {point["label"]: point for point in json.loads(out)["points"]}
    assert status == 0 and list(points) == ["bundle", "opus:6", "opus:12", "codec2:700"]
    if points["codec2:700"]["missing"]:
        pytest.skip(points["codec2:700"]["missing"])
    assert points["bundle"]["bps"] < 400 < points["codec2:700"]["bps"] < points["opus:12"]["bps"]
    assert points["opus:12"]["distortions"]["mel_l1"] < points["opus:6"]["distortions"]["mel_l1"]
    assert points["bundle"]["distortions"]["mcd"] > points["opus:12"]["distortions"]["mcd"] > 0
    assert (tmp_path / "rate_distortion.png").stat().st_size > 5000
    assert "| opus:6 |" in (tmp_path / "rate_distortion.md").read_text()
    status, out, err = run(capsys, *command, "--anchors", "mp3:8")
    assert status == 2 and "mp3" in err


def test_missing_programs_are_named_not_fatal(capsys, bundle_folder, recordings, monkeypatch):
    monkeypatch.setenv("PATH", "")
    command = [
        "codec-bench",
        recordings,
        "--bundle",
        bundle_folder,
        "-n",
        "1",
        "--anchors",
        "codec2:700",
    ]
    status, out, _ = run(capsys, *command)
    assert status == 0 and "codec2:700 left out: " in out and "apt-get install codec2" in out


def test_encodec_is_an_anchor_when_its_weights_are_given(tmp_path):
    transformers = pytest.importorskip("transformers")
    from fairseq_resynth.evaluation.codecs.baselines import encodec_baselines

    config = transformers.EncodecConfig(
        num_filters=4, hidden_size=16, codebook_dim=16, num_lstm_layers=1
    )
    transformers.EncodecModel(config).save_pretrained(tmp_path)
    found = encodec_baselines(tmp_path)
    assert [anchor.label for anchor in found] == ["encodec:1.5", "encodec:3", "encodec:6"]
    wav = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    decoded, size, _ = found[0].code(wav)
    assert decoded.shape == wav.shape and 8 * size == pytest.approx(1500, rel=0.02)
    with pytest.raises(FileNotFoundError, match="EnCodec"):
        encodec_baselines(tmp_path / "none")
