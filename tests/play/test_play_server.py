"""The page's server without a browser: what it answers, and that no upload ends it."""

import base64
import concurrent.futures
import gzip
import http.client
import io
import json
import os
import socket
import struct
import threading
import zipfile

import numpy as np
import pytest
import soundfile
from tiny_voices import ENGLISH, RUSSIAN, melody, save_tiny_bundle, tone

from fairseq_resynth.cli.main import main
from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.entropy.fitting import TrainingOptions, fit_entropy_model
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.conversion.convert import Controls, convert
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.uploads import decode_audio_bytes
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.play.server import (
    MAX_PENDING,
    MAX_REQUEST_BYTES,
    PlayServer,
    check_origin,
    is_loopback,
)
from fairseq_resynth.play.sessions import MAX_RECORDINGS, PlaySession
from fairseq_resynth.resynthesizer import Resynthesizer

MAX_BYTES = 400_000


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return Resynthesizer.from_pretrained(
        save_tiny_bundle(tmp_path_factory.mktemp("play") / "bundle")
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A system without pitch whose speakers are a table."""
    folder = tmp_path_factory.mktemp("play") / "table"
    return Resynthesizer.from_pretrained(
        save_tiny_bundle(folder, False, f0_channels=0, f0_codes={})
    )


@pytest.fixture(scope="module")
def codec(table):
    rows = [Utterance(table.units(load_any_audio(path)[0])) for path in (ENGLISH, RUSSIAN)]
    settings = Settings(20, unit_hop=160, num_f0_codes=0)
    return SpeechCodec(table, fit_entropy_model(rows, settings, TrainingOptions(hidden_size=0)))


@pytest.fixture(scope="module")
def server(system):
    with PlayServer(("127.0.0.1", 0), MAX_BYTES, PlaySession(system, max_seconds=8)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def ask(server):
    """Sends a request; returns (status, JSON)."""

    def send(path, body=None, headers=None, method=None):
        connection = http.client.HTTPConnection(*server.server_address, timeout=60)
        headers = {"Content-Type": "audio/flac", **(headers or {})}
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)

    return send


def wav_bytes(wav, rate=16000, **form):
    stream = io.BytesIO()
    soundfile.write(stream, wav, rate, format=form.pop("format", "WAV"), **form)
    return stream.getvalue()


def samples(uri):
    return soundfile.read(io.BytesIO(base64.b64decode(uri.split(",")[1])))[0]


def spoken(ask, **request):
    status, shown = ask("/api/speech", json.dumps(request).encode())
    assert status == 200, shown
    return shown


@pytest.fixture(scope="module")
def speech():
    return load_any_audio(ENGLISH)[0]


@pytest.fixture
def source(ask):
    status, shown = ask("/api/source", ENGLISH.read_bytes())
    assert status == 200
    return shown["key"]


def test_the_page_speaks_what_the_command_speaks(ask, system, speech, source):
    shown = spoken(ask, source=source, voice="boris", speaker="anna", pitch="shift=+3st", rate=0.8)
    done = convert(system, speech, "boris", "anna", Controls("shift=+3st", 0.8))
    assert shown["units"] == done.speech.units.tolist()
    np.testing.assert_allclose(samples(shown["audio"]), done.wav, atol=2 / 32768)
    assert shown["seconds"] == len(done.wav) / 16000
    assert shown["f0_mean"] == pytest.approx(done.f0[done.f0 > 0].mean(), abs=0.1)
    assert shown["title"] == "boris, shift=+3st, rate 0.8"
    assert shown["spectrogram"].startswith("data:image/png;base64,")


def test_the_bit_rate_is_that_of_the_coded_file(ask, codec, table, source):
    bits = spoken(ask, source=source, voice="boris")["bits"]
    assert bits["fixed"] == {"units": round(100 * np.log2(20), 1)} and bits["continuous"]
    assert bits["coded"] is None and bits["pcm"] == 256000
    session = PlaySession(table, codec)
    key = session.add_source(ENGLISH.read_bytes())["key"]
    shown = session.speak(json.dumps({"source": key, "voice": "boris"}).encode())
    bits = shown["bits"]
    assert not bits["continuous"]
    assert bits["coded"]["total"] == pytest.approx(8 * bits["bytes"] / shown["seconds"], rel=1e-3)
    assert bits["coded"]["units"] < bits["fixed"]["units"]


def test_a_reference_speaks_and_its_key_is_no_recording(ask, system, speech, source):
    status, reference = ask("/api/reference", RUSSIAN.read_bytes())
    assert status == 200 and reference["statistics"]["num_voiced"] > 50
    shown = spoken(ask, source=source, reference=reference["key"], speaker="anna")
    done = convert(system, speech, RUSSIAN, "anna")
    np.testing.assert_allclose(samples(shown["audio"]), done.wav, atol=2 / 32768)
    assert "voiced frames" in shown["notes"][0]
    status, answer = ask(
        "/api/speech", json.dumps({"source": source, "reference": source}).encode()
    )
    assert status == 400 and "not uploaded as a voice" in answer["error"]


def cut(data, share=0.5):
    return data[: int(len(data) * share)]


def header(channels, rate, kind=1, bits=16):
    """A WAV of some noise with a header of this content."""
    data, frame = os.urandom(4000), channels * bits // 8
    form = struct.pack("<IHHIIHH", 16, kind, channels, rate, rate * frame, max(frame, 1), bits)
    start = b"RIFF" + struct.pack("<I", 4036) + b"WAVEfmt " + form
    return start + b"data" + struct.pack("<I", 4000) + data


def zip_bytes():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.wav", wav_bytes(NOISE))
    return stream.getvalue()


NOISE = 0.1 * np.random.default_rng(0).standard_normal(32000)
MULTIPART = (
    b'--x\r\nContent-Disposition: form-data; name="f"; filename="../../etc/passwd"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\r\n--x--\r\n"
)
BAD_SOURCES = {
    "text": (b"this is no audio\n" * 50, "not readable as audio"),
    "empty": (b"", "is empty (0 bytes)"),
    "zeros": (bytes(5000), "not readable as audio"),
    "silent": (wav_bytes(np.zeros(16000)), "is silent"),
    "no samples": (wav_bytes(np.zeros(0)), "has no samples"),
    "too short": (wav_bytes(NOISE[:1600]), "0.10 s long, expected 0.25 s"),
    "too long": (wav_bytes(np.tile(NOISE, 5)), "longer than 8 s"),
    "an hour in a few bytes": (
        wav_bytes(np.zeros(16000 * 3600, np.int16), format="FLAC"),
        "longer than 8 s",
    ),
    "cut WAV": (cut(wav_bytes(NOISE)), "is cut off: its header announces 64044 bytes"),
    "cut FLAC": (cut(ENGLISH.read_bytes()), "cut off"),
    "NaN": (
        wav_bytes(np.full(16000, np.nan), subtype="FLOAT"),
        "sample 0 is nan, expected finite numbers",
    ),
    "playlist": (f"ffconcat version 1.0\nfile {ENGLISH}\n".encode(), "not readable as audio"),
    "HLS": (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{ENGLISH}\n#EXT-X-ENDLIST".encode(),
        "not readable as audio",
    ),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(200), "not readable as audio"),
    "huge": (wav_bytes(NOISE * 1e38, subtype="FLOAT"), "expected floats from -1 to 1"),
    "infinite": (wav_bytes(NOISE * 1e300, subtype="DOUBLE"), "inf, expected finite numbers"),
    "an old encoding": (
        header(1, 16000, kind=0x20, bits=4),
        "in the encoding adpcm_yamaha, expected a common one",
    ),
    "two rates": (
        wav_bytes(NOISE, 44100, format="MP3") + wav_bytes(NOISE, format="MP3"),
        "parts of different sample rates or channels",
    ),
    "1000 channels": (header(1000, 16000), "not readable as audio"),
    "no channel": (header(0, 16000), "not readable as audio"),
    "1 Hz": (header(1, 1), "1 samples per second, expected 4000 to"),
    "1 GHz": (header(1, 10**9), "1000000000 samples per second, expected 4000 to"),
    "zip": (zip_bytes(), "not readable as audio"),
    "gzip": (gzip.compress(wav_bytes(NOISE)), "not readable as audio"),
    "SDP": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n", "not readable as audio"),
    "DASH": (b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>', "not readable"),
    "subtitles": (b"1\n00:00:00,000 --> 00:00:05,000\nhello\n", "not readable as audio"),
    "odd rate": (wav_bytes(NOISE, 1000), "1000 samples per second"),
    "noise in a RIFF": (b"RIFF\xff\xff\xff\xffWAVE" + os.urandom(3000), "not readable"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_bad_recording_is_one_sentence_and_the_next_one_is_served(ask, name):
    data, reason = BAD_SOURCES[name]
    status, answer = ask("/api/source", data)
    assert status == 400 and reason in answer["error"] and "\n" not in answer["error"]
    assert "/" not in answer["error"]  # no path of the server
    assert ask("/api/source", ENGLISH.read_bytes())[0] == 200


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (tone(150, 0.9), "0.90 s, expected a second or more"),
        (np.zeros(32000), "is silent"),
        (NOISE, "is it noise?"),
        (melody(), "is it music or a tone?"),
    ],
)
def test_a_bad_reference_is_one_sentence(ask, sound, reason):
    status, answer = ask("/api/reference", wav_bytes(sound))
    assert status == 400 and reason in answer["error"]


def test_what_is_no_upload_is_refused(ask):
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    status, answer = ask("/api/source", MULTIPART, form)
    assert status == 415 and "found a form (multipart/form-data)" in answer["error"]
    endless = {"Content-Type": "multipart/form-data; boundary=" + "x" * 5000}
    assert ask("/api/source", b"--x\r\n" * 9999, endless)[0] == 415
    status, answer = ask("/api/source", bytes(MAX_BYTES + 1))
    assert status == 413 and "expected up to 0.4 MB" in answer["error"]
    status, answer = ask("/api/source", iter([b"abc"]), {"Transfer-Encoding": "chunked"}, "POST")
    assert status == 411 and "Content-Length" in answer["error"]
    for length in ("-1", "1e9", "9" * 5000):
        assert ask("/api/source", b"", {"Content-Length": length}, "POST")[0] == 411
    assert ask("/api/source", b"", {"Content-Length": str(10**14)}, "POST")[0] == 413
    assert ask("/etc/passwd")[0] == ask("/../setup.py")[0] == ask("/%2e%2e/x")[0] == 404
    assert ask("/api/model", b"{}")[0] == 404
    assert ask("/", method="DELETE")[0] == 501
    assert ask("/api/model")[0] == 200


@pytest.mark.parametrize(
    ("request_body", "reason"),
    [
        (b"no json", "not JSON"),
        (b"[" * 60000, "not JSON"),
        (b"[1]", "a JSON list, expected an object"),
        (b"\xff\xfe\x00", "not JSON"),
        ({"path": "/etc/passwd"}, "the request has 'path', expected some of source"),
        ({"a\nb": 1}, "the request has 'a\\nb', expected"),
        ({"x" * 60000: 1}, "the request has '" + 80 * "x" + "', expected"),
        (b'{"source": "KEY", "voice": "anna", "rate": 1%s}' % (400 * b"0"), "expected 0.25 to 4"),
        ({"source": "KEY", "voice": "anna", "pitch": "shift=" + 190 * "9"}, "within two octaves"),
        ({}, "give a recording first"),
        ({"source": 7}, "source is '7', expected text"),
        ({"source": "unknown", "voice": "anna"}, "record or upload it again"),
        ({"source": "KEY", "voice": str(ENGLISH)}, "unknown speaker"),
        ({"source": "KEY", "voice": "anna", "speaker": str(ENGLISH)}, "unknown speaker"),
        ({"source": "KEY", "voice": "clara"}, "unknown speaker 'clara'; the model has anna, boris"),
        ({"source": "KEY", "voice": "anna", "reference": "x"}, "one of the two"),
        ({"source": "KEY", "reference": str(ENGLISH)}, "record or upload it again"),
        ({"source": "KEY", "voice": "anna", "pitch": f"from={ENGLISH}"}, "opens no files"),
        ({"source": "KEY", "voice": "anna", "durations": f"from={ENGLISH}"}, "expected predicted"),
        ({"source": "KEY", "voice": "anna", "pitch": "up"}, "expected shift="),
        ({"source": "KEY", "voice": "anna", "pitch": "shift=+25st"}, "within two octaves"),
        ({"source": "KEY", "voice": "anna", "rate": 5}, "expected 0.25 to 4"),
        (b'{"source": "KEY", "voice": "anna", "rate": NaN}', "expected 0.25 to 4"),
        ({"source": "KEY", "voice": "anna", "rate": "1"}, "rate is '1', expected a number"),
        ({"source": "KEY", "voice": "anna", "rate": True}, "expected a number"),
        ({"source": "KEY", "voice": "anna", "style": "sad"}, "needs a model with styles"),
        ({"source": "KEY"}, "give a target: one of anna, boris"),
    ],
)
def test_a_bad_request_is_one_sentence(ask, source, request_body, reason):
    body = request_body if isinstance(request_body, bytes) else json.dumps(request_body).encode()
    status, answer = ask("/api/speech", body.replace(b"KEY", source.encode()))
    assert status in (400, 410) and reason in answer["error"]
    assert ask("/api/speech", b" " * (MAX_REQUEST_BYTES + 1))[0] == 413


def test_an_upload_that_breaks_off_ends_nothing(server, ask):
    with socket.create_connection(server.server_address) as connection:
        connection.sendall(
            b"POST /api/source HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\nab"
        )
        connection.shutdown(socket.SHUT_WR)
        assert b"broke off: 2 of 90 bytes came" in connection.makefile("rb").read()
    for garbage in (b"\x16\x03\x01\x02\x00\x01\xfc", b"GET\r\n\r\n", b"\r\n" * 9, b"x" * 70000):
        with socket.create_connection(server.server_address) as connection:
            connection.sendall(garbage)
    assert ask("/api/model")[0] == 200


def test_strangers_pages_are_refused(server, ask):
    port = server.server_address[1]
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "",
        "127.0.0.1.evil.example",
        "[",
        "10.0.0.1",
    ):
        status, answer = ask("/api/model", headers={"Host": host})
        assert status == 403 and "this server is 127.0.0.1" in answer["error"]
    own = f"127.0.0.1:{port}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", "http://["):
        assert ask("/api/source", b"x", {"Host": own, "Origin": origin})[0] == 403
    assert ask("/api/model", headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    for host in (own, f"localhost:{port}", f"[::1]:{port}"):
        assert ask("/api/model", headers={"Host": host, "Origin": f"http://{host}"})[0] == 200
    assert check_origin({"Host": "10.0.0.1:80"}, "0.0.0.0") == ""
    assert check_origin({"Host": "evil.example"}, "0.0.0.0")
    assert is_loopback("127.0.0.2") and is_loopback("::1") and not is_loopback("0.0.0.0")


def test_requests_at_once_wait_for_each_other(ask, source, system, monkeypatch):
    alone, running, most = spoken(ask, source=source, voice="boris"), [], []
    decode_all = system.decode_all

    def watched(speech):
        running.append(1)
        most.append(len(running))
        wavs = decode_all(speech)
        running.pop()
        return wavs

    monkeypatch.setattr(system, "decode_all", watched)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(spoken, ask, source=source, voice="boris") for _ in range(4)]
        assert all(answer.result()["audio"] == alone["audio"] for answer in answers)
    assert most == [1] * 4


def test_more_requests_than_slots_are_told_to_wait(server, ask):
    taken = [
        server.slots.acquire(timeout=60) for _ in range(MAX_PENDING)
    ]  # earlier ones may still leave
    status, answer = ask("/api/source", ENGLISH.read_bytes())
    for _ in taken:
        server.slots.release()
    assert all(taken) and status == 503 and "try again later" in answer["error"]
    assert ask("/api/source", ENGLISH.read_bytes())[0] == 200


def test_an_unforeseen_failure_is_one_sentence_too(ask, source, system, monkeypatch):
    def fail(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(system, "decode_all", fail)
    status, answer = ask("/api/speech", json.dumps({"source": source, "voice": "anna"}).encode())
    assert status == 500 and "secret" not in answer["error"]
    monkeypatch.undo()
    assert spoken(ask, source=source, voice="anna")["seconds"] > 1


def test_the_oldest_recordings_go_first(system):
    session = PlaySession(system, max_seconds=5)
    wavs = [wav_bytes(tone(100 + index, 0.3)) for index in range(MAX_RECORDINGS + 1)]
    keys = [session.add_source(data)["key"] for data in wavs]
    with pytest.raises(ValueError, match="upload it again"):
        session.speak(json.dumps({"source": keys[0], "voice": "anna"}).encode())
    assert session.speak(json.dumps({"source": keys[1], "voice": "anna"}).encode())["seconds"] > 0


def test_formats_are_decoded_alike(speech):
    for form in (
        {"format": "FLAC"},
        {"format": "OGG"},
        {"subtype": "PCM_24"},
        {"subtype": "FLOAT"},
    ):
        wav, notes = decode_audio_bytes(wav_bytes(speech, **form), 5)
        assert notes == []
        assert len(wav) == pytest.approx(len(speech), abs=320)
        assert np.corrcoef(wav[:20000], speech[:20000])[0, 1] > 0.98
    stereo = np.stack(
        [np.interp(np.arange(0, len(speech), 16 / 44.1), np.arange(len(speech)), speech)] * 2, 1
    )
    wav, notes = decode_audio_bytes(wav_bytes(stereo, 44100), 5)
    assert notes == []
    assert np.corrcoef(wav[: len(speech)], speech[: len(wav)])[0, 1] > 0.98


def test_channels_are_chosen_as_the_command_line_does(ask, speech, tmp_path):
    speech = speech[:16000]
    silent, other = np.zeros_like(speech), np.roll(speech, 5000)
    for channels, note in (
        ([speech, silent], "1 of 2 channels is silent and left out"),
        ([speech, other], "nearly uncorrelated: two speakers"),
        ([speech] + [0.5 * speech] * 7, ""),
    ):
        data = wav_bytes(np.stack(channels, 1))
        (tmp_path / "a.wav").write_bytes(data)
        status, shown = ask("/api/source", data)
        assert status == 200 and note in "".join(shown["notes"])
        np.testing.assert_allclose(
            samples(shown["audio"]), load_any_audio(tmp_path / "a.wav")[0], atol=2 / 32768
        )
    data = wav_bytes(np.stack([speech, -speech], 1))
    (tmp_path / "a.wav").write_bytes(data)
    status, answer = ask("/api/source", data)
    assert status == 400
    with pytest.raises(ValueError) as refused:
        load_any_audio(tmp_path / "a.wav")
    assert answer["error"] == str(refused.value).replace(str(tmp_path / "a.wav"), "the recording")


def test_a_bundle_on_a_table_takes_no_reference(table):
    session = PlaySession(table)
    told = session.describe()
    assert not told["takes_reference"] and not told["has_pitch"]
    with pytest.raises(ValueError, match="takes no reference: choose one of anna, boris"):
        session.add_reference(RUSSIAN.read_bytes())
    key = session.add_source(ENGLISH.read_bytes())["key"]
    with pytest.raises(ValueError, match="needs a model with a pitch stream"):
        session.speak(json.dumps({"source": key, "voice": "anna", "pitch": "flatten"}).encode())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "expected 0 to 65535"),
        (["--max-seconds", "0"], "expected 1 to 600 seconds"),
        (["--max-upload", "nan"], "expected 0.001 to 1000 megabytes"),
        (["--host", "256.0.0.1", "--port", "0"], "cannot listen at 256.0.0.1:0"),
        (["--bundle", "nowhere"], "nowhere is not a bundle"),
    ],
)
def test_mistakes_of_the_command_are_one_sentence(tmp_path_factory, capsys, options, message):
    folder = save_tiny_bundle(tmp_path_factory.mktemp("play") / "bundle", False)
    assert main(["play", "--bundle", str(folder), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_taken_port_is_named_before_the_model_is_loaded(server, system, capsys, monkeypatch):
    port = str(server.server_address[1])
    monkeypatch.setattr(PlaySession, "load", None)
    assert main(["play", "--bundle", "any", "--port", port]) == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err
    with pytest.raises(OSError):
        PlayServer(("127.0.0.1", server.server_address[1]), MAX_BYTES, PlaySession(system))
