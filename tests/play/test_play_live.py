"""Live conversion over the page's WebSocket, without a browser: its result, and that no client ends it."""

import base64
import http.client
import json
import os
import socket
import struct
import threading
import time

import numpy as np
import pytest
from tiny_voices import ENGLISH, save_tiny_bundle

from fairseq_resynth.conversion.live import LiveConverter
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.play import live as live_module
from fairseq_resynth.play.live import accept_key
from fairseq_resynth.play.server import MAX_LIVE, PlayServer
from fairseq_resynth.play.sessions import PlaySession
from fairseq_resynth.resynthesizer import Resynthesizer

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SPEECH = load_any_audio(ENGLISH)[0]


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    return Resynthesizer.from_pretrained(
        save_tiny_bundle(tmp_path_factory.mktemp("play_live") / "bundle")
    )


@pytest.fixture(scope="module")
def server(system):
    with PlayServer(("127.0.0.1", 0), 100_000, PlaySession(system)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Client:
    """A WebSocket client that can also break the rules."""

    def __init__(self, server, **headers):
        self.socket = socket.create_connection(server.server_address, timeout=20)
        host = "{}:{}".format(*server.server_address)
        lines = {
            "Host": host,
            "Origin": f"http://{host}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **headers,
        }
        request = "GET /api/live HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in lines.items()
        )
        self.socket.sendall(request.encode() + b"\r\n")
        self.stream = self.socket.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        while line := self.stream.readline().strip():
            if line.startswith(b"Sec-WebSocket-Accept"):
                assert line.split()[1].decode() == accept_key(lines)

    def send(self, data, kind=None, last=True, masked=True, flags=0):
        kind = (BINARY if isinstance(data, bytes) else TEXT) if kind is None else kind
        data = data if isinstance(data, bytes) else data.encode()
        size, mask = len(data), os.urandom(4)
        head = struct.pack(">BBQ", last << 7 | flags | kind, masked << 7 | 127, size)
        body = np.frombuffer(data, np.uint8) ^ np.resize(np.frombuffer(mask, np.uint8), size)
        self.socket.sendall(head + (mask + body.tobytes() if masked else data))

    def start(self, **values):
        self.send(json.dumps({"voice": "boris", "speaker": "anna", **values}))

    def receive(self):
        first, size = self.stream.read(2)
        if size >= 126:
            size = int.from_bytes(self.stream.read(2 if size == 126 else 8), "big")
        return first & 15, self.stream.read(size)

    def rest(self):
        """What comes until the server closes: samples, what it says, and its code."""
        samples, said = [], []
        while True:
            kind, data = self.receive()
            if kind == CLOSE:
                self.socket.close()
                return np.concatenate([np.zeros(0), *samples]), said, int.from_bytes(data, "big")
            if kind == BINARY:
                samples.append(np.frombuffer(data, "<f4"))
            else:
                said.append(json.loads(data))


@pytest.fixture
def client(server):
    return Client(server)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_it_speaks_what_the_converter_speaks(client, system, rate):
    wav = resample(SPEECH, 16000, rate)
    client.start(sample_rate=rate, pitch="shift=2st")
    for piece in np.array_split(wav, 7):
        client.send(piece.astype("<f4").tobytes())
    client.send('{"end": true}')
    found, said, code = client.rest()
    assert said == [{"delay": pytest.approx(0.4)}, {"ended": True}] and code == 1000
    session = PlaySession(system)
    values = {"voice": "boris", "speaker": "anna", "pitch": "shift=2st"}
    converter = session.start_live(values, rate)
    expected = np.append(converter.push(wav, rate), converter.flush())
    assert len(found) == len(wav)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_voice_and_rate_change_in_the_middle_and_nothing_is_lost(client):
    half = SPEECH[: len(SPEECH) // 2]
    client.start()
    client.send(half.astype("<f4").tobytes())
    client.start(voice="anna", sample_rate=8000)
    client.send(half.astype("<f4").tobytes())
    client.send("ping", PING)
    client.send('{"end":', TEXT, last=False)
    client.send(" true}", 0)
    pieces = []
    while True:
        kind, data = client.receive()
        if kind == PONG:
            assert data == b"ping"
            break
        pieces += [np.frombuffer(data, "<f4")] if kind == BINARY else []
    found, said, code = client.rest()
    assert sum(map(len, pieces)) + len(found) == 2 * len(half)
    assert said[-1] == {"ended": True} and code == 1000


def rubbish():
    samples = np.zeros(400, "<f4").tobytes()
    start = '{"voice": "boris"}'
    nan = np.full(100, np.nan, "<f4").tobytes()
    return {
        "no JSON": ([("hello",)], 1008, "not JSON"),
        "a list": ([("[1]",)], 1008, "a JSON list"),
        "deep JSON": ([("[" * 100_000,)], 1008, "not JSON"),
        "no start": ([(samples,)], 1008, "before the JSON that names the voice"),
        "unknown voice": ([('{"voice": "carl"}',)], 1008, "carl"),
        "unknown field": ([('{"voice": "boris", "path": "/etc"}',)], 1008, "path"),
        "a file": ([('{"voice": "boris", "pitch": "from=/etc/passwd"}',)], 1008, "opens no files"),
        "rhythm": ([('{"voice": "boris", "rate": 2}',)], 1008, "--rate needs the whole"),
        "rate": ([('{"voice": "boris", "sample_rate": 7}',)], 1008, "7 Hz, expected a multiple"),
        "rate in words": ([('{"voice": "boris", "sample_rate": "x"}',)], 1008, "whole number"),
        "odd bytes": ([(start,), (samples[:-1],)], 1008, "1599 bytes"),
        "NaN": ([(start,), (nan,)], 1008, "finite"),
        "no UTF-8": ([(b"\xff\xfe", TEXT)], 1008, "UTF-8"),
        "too large": ([(start,), (bytes((1 << 20) + 4),)], 1009, "1048580 bytes"),
        "large in parts": (
            [(bytes(1 << 19), BINARY, False), (bytes((1 << 19) + 4), 0)], 1009, "expected up to",
        ),
        "no mask": ([(start, TEXT, True, False)], 1002, "RFC 6455"),
        "reserved bits": ([(start, TEXT, True, True, 64)], 1002, "RFC 6455"),
        "unknown kind": ([(b"", 5)], 1002, "out of place"),
        "continues nothing": ([(b"", 0)], 1002, "out of place"),
    }  # fmt: skip


@pytest.mark.parametrize("name", rubbish())
def test_rubbish_is_one_sentence_and_the_next_client_is_served(server, name):
    messages, code, sentence = rubbish()[name]
    client = Client(server)
    for message in messages:
        client.send(*message)
    _, said, found = client.rest()
    assert found == code and sentence in said[-1]["error"] and "\n" not in said[-1]["error"]
    following = Client(server)
    following.start()
    assert following.receive()[0] == TEXT
    following.send(b"", CLOSE)
    assert following.receive()[0] == CLOSE


def test_what_was_said_before_rubbish_is_not_lost(client):
    client.start()
    client.send(SPEECH.astype("<f4").tobytes())
    client.send("rubbish")
    found, said, _ = client.rest()
    assert len(found) == len(SPEECH) and "not JSON" in said[-1]["error"]


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def free(server):
    return server.live_slots._value == MAX_LIVE


def test_a_client_that_floods_is_slowed_and_others_are_served(server, monkeypatch):
    """A minute of speech at once: the server takes what time allows, and answers others meanwhile."""
    taken = []
    original = PlaySession.push_live

    def push(self, converter, samples, rate):
        taken.append(0 if samples is None else len(samples))
        return original(self, converter, samples, rate)

    monkeypatch.setattr(PlaySession, "push_live", push)
    monkeypatch.setattr(live_module, "MAX_AHEAD", 0.5)
    client, began = Client(server), time.monotonic()
    client.start()
    client.socket.settimeout(1)
    with pytest.raises(TimeoutError):  # the client's own sockets fill up
        for _ in range(1000):
            client.send(np.zeros(16000, "<f4").tobytes())
    connection = http.client.HTTPConnection(*server.server_address, timeout=20)
    connection.request("GET", "/api/model")
    assert connection.getresponse().status == 200
    connection.close()
    assert sum(taken) / 16000 < time.monotonic() - began + 2
    client.socket.close()
    client.stream.close()
    wait_until(lambda: free(server))


def test_slots_are_limited_and_given_back(server):
    clients = [Client(server) for _ in range(2 * MAX_LIVE)]
    for client in clients[MAX_LIVE:]:
        client.start()
        assert "delay" in json.loads(client.receive()[1])
    clients[0].start()
    _, said, code = clients[0].rest()
    assert code == 1013 and "other live conversions are running" in said[0]["error"]
    for client in clients[1:]:
        client.socket.close()
        client.stream.close()  # gone without a word
    wait_until(lambda: free(server))
    client = Client(server)
    client.start()
    assert "delay" in json.loads(client.receive()[1])


def test_strangers_and_other_requests_get_no_socket(server):
    assert Client(server, Origin="http://evil.example").status == 403
    assert Client(server, Host="evil.example").status == 403
    assert Client(server, Upgrade="h2c").status == 400
    assert Client(server, **{"Sec-WebSocket-Version": "8"}).status == 400


def test_the_converter_is_what_the_page_asks_for(system):
    session = PlaySession(system)
    converter = session.start_live({"voice": "anna"}, 44100)
    assert isinstance(converter, LiveConverter) and converter.voice.name == "anna"
    with pytest.raises(ValueError, match="no longer kept"):
        session.start_live({"reference": "none"}, 16000)
