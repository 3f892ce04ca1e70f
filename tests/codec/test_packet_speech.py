"""Speech in packets: in Python, in files and on pipes, with packets that are lost."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from codec_models import DATA, speech_files
from test_codec_commands import run

from fairseq_resynth.cli.main import main
from fairseq_resynth.codec.format.packets import frame_packets, unframe_packets
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.evaluation.codecs.packet_loss import lost_packets


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    return load_any_audio(speech_files(1)[0])[0]


@pytest.fixture(scope="module")
def utterance(codec, recording) -> Utterance:
    """Three seconds of streams."""
    speech = codec.resynthesizer.encode(recording, "boris")
    codes = len(speech.units) // 8
    units, f0_codes = np.tile(speech.units[: 8 * codes], 3), np.tile(speech.f0_codes[:codes], 3)
    units, f0_codes = units[:301], f0_codes[:38]
    return Utterance(units, f0_codes, "boris", len(units) * 160 + 100)


def test_packets_without_loss_speak_as_the_whole_file(codec, utterance):
    packets = codec.pack_packets(utterance, 0.32)
    expected = codec.decode(codec.pack(utterance))
    wav, reception = codec.decode_packets(packets)
    np.testing.assert_array_equal(wav, expected)
    assert reception.text() == f"{len(packets)} of {len(packets)} packets"
    pieces = codec.decode_packet_stream(iter(packets), codec.receiver(2))
    np.testing.assert_allclose(np.concatenate([*pieces]), expected, atol=1e-5)
    slow, _ = codec.decode_packets(packets, "anna", "+2", 0.8)
    np.testing.assert_array_equal(slow, codec.decode(codec.pack(utterance), "anna", "+2", 0.8))


@pytest.mark.parametrize("conceal", ["fade", "hold"])
def test_what_arrived_is_spoken_in_time_and_the_gap_is_named(codec, utterance, conceal):
    packets = codec.pack_packets(utterance, 0.4)
    expected = codec.decode(codec.pack(utterance))
    arriving = [*packets[:2], *packets[4:6], packets[5], *packets[6:]]
    wav, reception = codec.decode_packets(arriving, conceal=conceal)
    assert (reception.missing, reception.doubled, reception.ended) == ([2, 3], [5], True)
    context = codec.resynthesizer.decoder.generator.generator.context_frames * 320
    first, end = 2 * 6400, 4 * 6400
    assert wav.shape == expected.shape
    np.testing.assert_allclose(wav[: first - context], expected[: first - context], atol=1e-5)
    np.testing.assert_allclose(wav[end + context :], expected[end + context :], atol=1e-5)
    assert wav[first + 1000 : end].any() == (conceal == "hold")
    pieces = codec.decode_packet_stream(iter(arriving), codec.receiver(1), conceal=conceal)
    np.testing.assert_allclose(np.concatenate([*pieces]), wav, atol=1e-5)
    for decode in (
        lambda: codec.decode_packets(arriving),
        lambda: [*codec.decode_packet_stream(arriving, codec.receiver(1))],
    ):
        with pytest.raises(CodecError, match="missing: 2-3.*--conceal speaks the rest"):
            decode()
    with pytest.raises(ValueError, match="found conceal='no', expected fade, hold or None"):
        codec.decode_packets(arriving, conceal="no")


def test_the_end_of_a_stream_may_be_lost(codec, utterance):
    packets = codec.pack_packets(utterance, 0.4)
    wav, reception = codec.decode_packets(packets[:3], conceal="fade")
    assert len(wav) == 3 * 6400 and not reception.ended
    assert "the last packet is missing" in reception.text()
    with pytest.raises(CodecError, match="the last packet is missing, so more may be"):
        codec.decode_packets(packets[:3])
    with pytest.raises(CodecError, match="none of the 0 packets"):
        codec.decode_packets([], conceal="hold")
    last, _ = codec.decode_packets(packets[-1:], conceal="hold")  # it tells how long the others are
    assert len(last) == utterance.num_samples


def test_audio_is_packed_while_it_arrives(codec, recording):
    pieces = [recording[start : start + 999] for start in range(0, len(recording), 999)]
    taken, sent, packets = 0, [], []

    def arriving():
        nonlocal taken
        for piece in pieces:
            taken += len(piece)
            yield piece

    for data in codec.encode_packet_stream(arriving(), "anna", 0.4):
        sent.append(taken)
        packets.append(data)
    blocks = codec.decode(codec.encode_blocks(recording, "anna", 0.4))
    np.testing.assert_array_equal(codec.decode_packets(packets)[0], blocks)
    assert sent[0] <= (0.4 + 1.0) * 16000 + 999  # a packet and the context of its block


def test_packet_files_there_and_back(capsys, bundle_folder, codec, recording, tmp_path):
    source, options = tmp_path / "in.wav", ["--bundle", bundle_folder]
    soundfile.write(source, recording, 16000)
    coded, wav = tmp_path / "a.rsynp", tmp_path / "a.wav"
    packing = ["--speaker", "anna", "--packets", "0.4"]
    assert run(capsys, "encode", source, "-o", coded, *packing, *options)[0] == 0
    packets = codec.encode_packets(source, "anna", 0.4)
    assert coded.read_bytes() == b"".join(frame_packets(packets)) and len(packets) > 3
    assert run(capsys, "decode", coded, "-o", wav, *options)[0] == 0
    expected, _ = codec.decode_packets(packets)
    np.testing.assert_allclose(soundfile.read(wav)[0], np.clip(expected, -1, 1), atol=1e-4)
    damaged = [*packets[:2], b"\1" + packets[2], *packets[3:]]
    coded.write_bytes(b"".join(frame_packets(damaged)))
    status, _, err = run(capsys, "decode", coded, "-o", wav, *options)
    assert status == 2 and "missing: 2; damaged: 1 (arrivals 3): --conceal speaks the rest" in err
    command = ["decode", coded, "-o", wav, *options, "--conceal", "--json"]
    status, out, _ = run(capsys, *command, "--gap", "hold")
    found = json.loads(out)["packets"]["a"]
    assert (status, found["missing"], found["damaged"]) == (0, [2], [3])
    expected, _ = codec.decode_packets(damaged, conceal="hold")
    np.testing.assert_allclose(soundfile.read(wav)[0], np.clip(expected, -1, 1), atol=1e-4)


def test_folders_of_packet_files(capsys, bundle_folder, codec, recording, tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "a.wav", recording, 16000)
    options = ["--bundle", bundle_folder, "--json"]
    command = ["encode", tmp_path / "in", "-o", tmp_path / "out", *options, "--speaker", "anna"]
    packing = ["--packets", "0.4"]
    assert json.loads(run(capsys, *command, *packing)[1])["written"] == 1
    assert json.loads(run(capsys, *command, *packing)[1])["reused"] == 1
    assert json.loads(run(capsys, *command, *packing, "--block", "1")[1])["written"] == 1
    [path] = (tmp_path / "out").glob("*.rsynp")
    back = ["decode", tmp_path / "out", "-o", tmp_path / "wavs", *options]
    assert json.loads(run(capsys, *back)[1])["packets"]["a"]["missing"] == []
    packets = [*unframe_packets([path.read_bytes()])]
    path.write_bytes(b"".join(frame_packets(packets[1:])))
    status, out, _ = run(capsys, *back)
    assert status == 2 or "missing: 0" in json.loads(out)["failed"]["a"]
    status, out, _ = run(capsys, *back, "--conceal")
    assert json.loads(out)["packets"]["a"]["missing"] == [0]
    assert len(soundfile.read(tmp_path / "wavs" / "a.wav")[0]) == len(recording)
    path.with_suffix(".rsyn").write_bytes(b"")
    status, _, err = run(capsys, *back)
    assert status == 2 and "has a both as .rsyn and as .rsynp" in err


def through_pipes(monkeypatch, capsysbinary, data: bytes, *arguments) -> tuple[int, bytes, str]:
    stream = io.BytesIO(data)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream, isatty=lambda: False))
    status = main([str(argument) for argument in arguments])
    out, err = capsysbinary.readouterr()
    return status, out, err.decode()


def test_pipes_of_packets(bundle_folder, codec, recording, monkeypatch, capsysbinary):
    options = ["--stream", "--bundle", bundle_folder, "-o", "-"]
    pcm = (np.clip(recording, -1, 1) * 32767).astype("<i2")
    status, coded, _ = through_pipes(
        monkeypatch, capsysbinary, pcm.tobytes(),
        "encode", *options, "--speaker", "boris", "--packets", 0.4,
    )  # fmt: skip
    packets = [*unframe_packets([coded])]
    audio = pcm.astype(np.float32) / 32768
    assert status == 0 and packets == [*codec.encode_packet_stream([audio], "boris", 0.4)]
    for arriving, more in ((packets, []), ([*packets[:2], *packets[3:]], ["--conceal"])):
        data = b"".join(frame_packets(arriving))
        # A receiver that joins within a packet begins with the next one.
        status, said, err = through_pipes(
            monkeypatch, capsysbinary, data[len(more) :], "decode", *options, *more
        )
        conceal = "fade" if more else None
        expected, reception = codec.decode_packets(arriving, conceal=conceal)
        assert status == 0 and err.strip() == reception.text()
        found = np.frombuffer(said, "<i2") / 32768
        np.testing.assert_allclose(found, np.clip(expected, -1, 1), atol=1e-4)
    status, _, err = through_pipes(monkeypatch, capsysbinary, data, "decode", *options)
    assert status == 2 and "missing: 2: --conceal speaks the rest" in err


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["encode", "{wav}", "-o", "b.rsynp", "--packets", "0"], "found packets of 0.0 s"),
        (["encode", "{wav}", "-o", "b.rsyna", "--packets", "1"], "an archive holds whole files"),
        (["decode", "{units}", "-o", "b.wav", "--conceal"], "none of the 1 packets is whole"),
    ],
)
def test_mistakes_with_packets_are_one_line(
    capsys, bundle_folder, arguments, reason, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"units": DATA / "lj_hubert100.txt", "wav": speech_files(1)[0]}
    command = [argument.format(**places) for argument in arguments]
    status, out, err = run(capsys, *command, "--bundle", bundle_folder)
    assert status in (1, 2) and reason in out + err and err.strip().count("\n") <= 1


def test_loss_is_measured_beside_the_whole_file(capsys, bundle_folder, codec, utterance, tmp_path):
    data, units = tmp_path / "data", utterance.units
    data.mkdir()
    wav = codec.decode(codec.pack(utterance))  # so that nothing but the loss differs
    soundfile.write(data / "a.wav", wav, 16000)
    (data / "test.tsv").write_text(f".\na.wav\t{len(wav)}\n")
    (data / "test.units").write_text(" ".join(map(str, units)) + "\n")
    (data / "test.f0").write_text(" ".join(map(str, utterance.f0_codes)) + "\n")
    (data / "test.speaker").write_text("boris\n")
    command = ["codec-bench", data, "--bundle", bundle_folder, "--outdir", tmp_path / "out"]
    options = ["--packets", "0.4", "--loss", "0", "50", "100", "--seeds", "1", "--json"]
    options += ["--gap", "fade", "hold"]
    status, out, _ = run(capsys, *command, *options)
    points = json.loads(out)["points"]
    assert status == 0 and {point["gap"] for point in points[:2]} == {""}
    held = [point for point in points if point["gap"] == "hold"]
    points = [point for point in points if point not in held]
    assert [point["label"].split(", ")[-1] for point in points] == [
        "whole files", "no loss", "uniform 50 %", "bursts 50 %", "uniform 100 %", "bursts 100 %"
    ]  # fmt: skip
    for one, other in zip(held, points[2:], strict=True):
        assert (one["label"], one["lost"]) == (other["label"], other["lost"])
    assert held[0]["distortions"] != points[2]["distortions"]
    packets = codec.pack_packets(utterance, 0.4)
    seconds = len(wav) / 16000
    assert points[1]["bps"] == pytest.approx(8 * sum(map(len, packets)) / seconds, abs=0.1)
    assert points[1]["overhead_bps"] == pytest.approx(24 * len(packets) / seconds, abs=0.1)
    assert points[1]["distortions"] == points[0]["distortions"]
    errors = [point["distortions"]["mel_l1"] for point in points]
    assert errors[0] < min(errors[2:]) and points[2]["lost"] < points[4]["lost"] == 1
    assert "| whole files |" in (tmp_path / "out" / "packet_loss.md").read_text()
    for extra, reason in ((["--seeds", "0"], "--seeds 0"), (["--loss", "101"], "--loss [101.0]")):
        status, _, err = run(capsys, *command, *options, *extra)
        assert status == 2 and reason in err


@pytest.mark.parametrize("burst", [1.0, 3.0])
def test_losses_have_the_rate_and_the_bursts_that_were_asked_for(burst):
    lost = lost_packets(200_000, 0.1, burst, np.random.default_rng(0))
    bursts = np.count_nonzero(np.diff(lost.astype(int), prepend=0) == 1)
    assert lost.mean() == pytest.approx(0.1, rel=0.03)
    assert lost.sum() / bursts == pytest.approx(3.0 if burst > 1 else 1 / 0.9, rel=0.03)
