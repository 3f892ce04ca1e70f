"""The page's server under attack: limits hold, others are served meanwhile, and everything is released."""

import collections
import contextlib
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_voices import ENGLISH, save_tiny_bundle

from fairseq_resynth.data.audio.uploads import UploadDecoder
from fairseq_resynth.play import connections
from fairseq_resynth.play import server as server_module
from fairseq_resynth.play.live import MAX_AHEAD, TEXT_SECONDS
from fairseq_resynth.play.server import PlayServer
from fairseq_resynth.play.sessions import PlaySession, Turns
from fairseq_resynth.resynthesizer import Resynthesizer

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "web_page.py"
MAX_BYTES = 400_000


# The benchmark runs the same attacks with many more connections.
SPEC = importlib.util.spec_from_file_location("web_page", BENCHMARK)
attacks = sys.modules["web_page"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(attacks)
FLOODS = attacks.floods("boris")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = save_tiny_bundle(tmp_path_factory.mktemp("attacked") / "bundle")
    session = PlaySession(Resynthesizer.from_pretrained(folder), max_seconds=8)
    with PlayServer(("127.0.0.1", 0), MAX_BYTES, session) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert upload(server) == 200  # starts the decoder
        session.push_live(session.start_live({"voice": "anna"}, 16000), np.zeros(16000), 16000)
        yield server
        server.shutdown()


def upload(server):
    return attacks.request(server.server_address, "/api/source", ENGLISH.read_bytes())[0]


def page(server):
    return attacks.request(server.server_address, "/")[0]


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def resources():
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def wait_until_left(server):
    """Until all clients have left, those that wait to be accepted too: they come before the page's."""
    wait_until(lambda: page(server) == 200)
    wait_until(lambda: len(server.connections) == 0)


@pytest.fixture
def released(server):
    """Threads, files, memory and slots are the same after a test as before."""
    wait_until_left(server)
    before = resources()
    yield
    wait_until_left(server)
    wait_until(lambda: all(now <= old for now, old in zip(resources(), before, strict=True)))
    assert server._held == 0
    assert server.slots._value == server_module.MAX_PENDING
    assert server.live_slots._value == server_module.MAX_LIVE


@pytest.mark.parametrize("name", FLOODS)
def test_others_are_served_during_a_flood(server, released, name):
    stop = threading.Event()
    outcomes = collections.Counter()
    attackers = [attacks.Attacker(server.server_address, FLOODS[name], outcomes) for _ in range(4)]

    def attack():
        while not stop.wait(0.005):
            for attacker in attackers:
                attacker.step()

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        wait_until(lambda: all(attacker.socket or outcomes for attacker in attackers))
        assert [page(server) for _ in range(5)] == [200] * 5
    finally:
        stop.set()
        thread.join()
        for attacker in attackers:
            attacker.close()
    assert sum(outcomes.values()) >= 4 and not set(outcomes) & {"0", "500"}


def test_a_conversion_is_served_during_slow_uploads(server, released):
    """More slow uploads than the server ever runs at a time do not keep it from others."""
    flood = FLOODS["bodies that stop"]
    outcomes = collections.Counter()
    attackers = [attacks.Attacker(server.server_address, flood, outcomes) for _ in range(12)]
    for attacker in attackers:
        attacker.step()
    assert upload(server) == 200
    for attacker in attackers:
        attacker.close()


def until_closed(client):
    """Reads until the server closes; a socket says why before it does."""
    with contextlib.suppress(ConnectionError):
        while client.recv(1 << 16):
            pass
    return True


SLOW = (
    *("headers byte by byte", "nothing at all", "bodies byte by byte", "bodies that stop"),
    *("sockets that are idle", "sockets that ping", "sockets with endless fragments"),
    "sockets that stop in a frame",
)


def test_clients_that_are_too_slow_are_closed(server, released, monkeypatch):
    monkeypatch.setattr(connections, "WINDOW_SECONDS", 0.5)
    opened = []
    for name in SLOW:
        client = socket.create_connection(server.server_address, timeout=60)
        client.sendall(FLOODS[name].opening)
        opened.append(client)
    for client in opened:
        assert until_closed(client)
        client.close()


def test_a_slow_client_leaves_when_all_places_are_taken(server, released, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(connections, "PATIENCE_SECONDS", 600)
    opened = [socket.create_connection(server.server_address) for _ in range(3)]
    wait_until(lambda: len(server.connections) == 3)
    with socket.create_connection(server.server_address, timeout=60) as refused:
        answer = refused.makefile("rb").read()
    assert b"503" in answer.split(b"\r\n")[0] and b"too many connections are open" in answer
    monkeypatch.setattr(connections, "PATIENCE_SECONDS", 0)
    assert page(server) == 200
    opened[0].settimeout(60)
    assert opened[0].recv(1) == b""  # the one that came first
    for client in opened:
        client.close()


def test_uploads_together_have_limited_memory(server, released, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_HELD", 1)
    head = attacks.post("/api/source", f"Content-Length: {MAX_BYTES}")
    slow = socket.create_connection(server.server_address)
    slow.sendall(head + bytes(MAX_BYTES - 1))
    wait_until(lambda: server._held == MAX_BYTES - 1)
    status, answer = attacks.request(server.server_address, "/api/source", ENGLISH.read_bytes())
    assert status == 503 and "fill the memory: try again later" in json.loads(answer)["error"]
    slow.close()
    wait_until(lambda: server._held == 0)
    assert upload(server) == 200


def test_uploads_at_once_are_all_served(server, released):
    bodies = [ENGLISH.read_bytes()] * 6
    assert attacks.upload_at_once(server.server_address, bodies) == {"200": 6}


@pytest.mark.parametrize("name", ["silent FLAC", "WAV header", "MP4 index", "MP4 packet"])
def test_bombs_are_one_sentence(server, released, name):
    """The index of 4.5 kB took 2.2 GB before each upload was decoded in a process of its own."""
    data = attacks.bombs(0.1)[name]
    status, answer = attacks.request(server.server_address, "/api/source", data)
    sentence = json.loads(answer)["error"]
    assert (
        status == 400
        and sentence.startswith(("the recording ", "the recording: "))
        and "\n" not in sentence
    )


def test_a_decoder_that_somebody_killed_is_started_again():
    decoder, data = UploadDecoder(), ENGLISH.read_bytes()
    first = decoder.decode(data, 8)[0]
    decoder._process.kill()
    decoder._process.wait()
    np.testing.assert_array_equal(decoder.decode(data, 8)[0], first)
    decoder.close()


def test_a_decoder_that_is_killed_while_it_answers_gives_no_shorter_recording():
    decoder = UploadDecoder()
    answer = 'import os; os.write(1, b\'{"notes": [], "bytes": 64000}\\n\' + bytes(3200))'
    command = [sys.executable, "-c", answer]
    decoder._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with pytest.raises(ValueError, match="could not be decoded: try again"):
        decoder.decode(b"x", 8)


def test_a_closed_decoder_decodes_nothing_and_keeps_nobody_waiting():
    decoder = UploadDecoder()
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    decoder._process = subprocess.Popen(sleeping, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    refused = []

    def decode():
        try:
            decoder.decode(b"x", 8)
        except ValueError as error:
            refused.append(str(error))

    waiting = [threading.Thread(target=decode) for _ in range(2)]
    for thread in waiting:
        thread.start()
    wait_until(decoder._lock.locked)
    decoder.close()
    for thread in waiting:
        thread.join()
    assert any("try again" in sentence or "is ending" in sentence for sentence in refused)
    assert len(refused) == 2 and "is ending" in refused[1]


def test_the_process_of_an_upload_can_open_nothing(tmp_path):
    """Whatever a container may make FFmpeg try: no file, no connection."""
    script = """
import io, os, socket, sys
from fairseq_resynth.data.audio import uploads
def tries(*_):
    found = []
    for name, open_it in {
        "read": lambda: open(__file__), "write": lambda: open("written", "w"),
        "connect": lambda: socket.socket(),
    }.items():
        try:
            open_it()
        except OSError:
            found.append(name)
    raise ValueError(" ".join(found))
uploads.decode_audio_bytes = tries
uploads._answer(sys.stdout.buffer, b"", 8, "x")
"""
    (tmp_path / "tries.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "tries.py"], cwd=tmp_path, capture_output=True
    )
    assert json.loads(done.stdout)["error"] == "read write connect", done.stderr
    assert not (tmp_path / "written").exists()


@pytest.mark.slow
def test_a_file_that_needs_too_much_memory_is_one_sentence():
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", 16000, 8, "PCM_16", format="FLAC") as sound:
        for _ in range(600):
            sound.write(np.ones((16000, 8), np.int16))
    decoder = UploadDecoder()
    with pytest.raises(ValueError, match="the recording needs more memory or time"):
        decoder.decode(stream.getvalue(), 600)
    assert len(decoder.decode(ENGLISH.read_bytes(), 8)[0]) == 28758
    decoder.close()


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/../setup.py",
            "/%2e%2e/setup.py",
            "/..%2fsetup.py",
            "/%2e%2e%2fsetup.py",
            "/./page.css",
        ),
        *("//etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://evil.example/", "/play.js/"),
        *("/play.js%00.html", "/\\..\\setup.py", "/page.css/../play.js", "/assets/play.js", "*"),
    ],
)
def test_paths_lead_to_nothing_but_the_files_of_the_page(server, path):
    status, answer = attacks.request(server.server_address, path)
    assert (
        status in (403, 404) and b"error" in answer
    )  # 403: http.client asks for the host of an address


def raw(server, request):
    """The first line of the answer, and the answer."""
    with socket.create_connection(server.server_address, timeout=60) as connection:
        connection.sendall(request)
        answer = connection.makefile("rb").read()
    return answer.split(b"\r\n")[0].decode(), answer


def test_requests_of_doubtful_hosts_and_lengths_are_refused(server, released):
    get, host = b"GET / HTTP/1.1\r\n", b"Host: localhost\r\n"
    assert "403" in raw(server, get + b"\r\n")[0]
    assert "403" in raw(server, b"GET / HTTP/1.0\r\n\r\n")[0]
    assert "400" in raw(server, get + host + b"Host: evil.example\r\n\r\n")[0]
    assert "403" in raw(server, get + b"Host: localhost.evil.example\r\n\r\n")[0]
    assert "403" in raw(server, get + b"Host: evil.example\r\nX: localhost\r\n\r\n")[0]
    both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert "411" in raw(server, b"POST /api/source HTTP/1.1\r\n" + host + both)[0]
    assert "431" in raw(server, get + (b"X: " + b"x" * 60_000 + b"\r\n") * 4 + b"\r\n")[0]
    assert "431" in raw(server, get + b"X: y\r\n" * 200 + b"\r\n")[0]
    assert "414" in raw(server, b"GET /" + b"x" * 70_000 + b"\r\n")[0]
    first, answer = raw(server, (get + host + b"\r\n") * 3)  # pipelined
    assert "200" in first and answer.count(b"HTTP/1.0 200") == 1
    for lines in (
        b"Host : evil.example\r\n",
        b"Origin : http://evil.example\r\n",
        b"X Y: z\r\nOrigin: http://evil.example\r\n",  # what follows would be dropped
        b"Origin: http://localhost\r\nOrigin: http://evil.example\r\n",
        b"Content-Length: 2\r\nContent-Length: 200\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding : chunked\r\n",
    ):
        assert "400" in raw(server, b"POST /api/speech HTTP/1.1\r\n" + host + lines + b"\r\n{}")[0]
    for method in (b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"__init__"):
        assert "501" in raw(server, method + b" / HTTP/1.1\r\n" + host + b"\r\n")[0]


def test_every_answer_forbids_what_it_does_not_need(server, monkeypatch):
    monkeypatch.setattr(connections, "PATIENCE_SECONDS", 600)
    host = b"Host: localhost\r\n\r\n"
    answers = [
        raw(server, b"GET / HTTP/1.1\r\n" + host)[1],
        raw(server, b"GET /nothing HTTP/1.1\r\n" + host)[1],
        raw(server, b"PUT / HTTP/1.1\r\n" + host)[1],
    ]
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 0)
    answers.append(raw(server, b"")[1])
    for answer in answers:
        for line in (b"nosniff", b"default-src 'none'", b"no-store", b"Opener-Policy: same-origin"):
            assert line in answer.partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        *(("Host", host, 200) for host in ("LOCALHOST", "localhost:1", "[::1]", "[::1]:1")),
        *(("Host", host, 403) for host in ("localhost.", "127.1", "2130706433", "0.0.0.0", "[::]")),
        *(("Host", f"127.0.0.1{end}", 403) for end in ("/x", "#x", "?x", "\\x", ":x", ",x", " x")),
        *(("Host", host, 403) for host in ("x@127.0.0.1", "[::1%25x]", "[::1", "\u00b9localhost")),
        *(("Origin", f"{kind}://localhost", 200) for kind in ("http", "https", "HTTP")),
        *(("Origin", f"{kind}://localhost", 403) for kind in ("file", "chrome-extension", "data")),
        *(("Origin", page, 403) for page in ("", "null", "//localhost", "http://x@localhost")),
        ("Origin", "http://localhost:80", 403),
    ],
)
def test_hosts_and_origins_in_every_spelling(name, value, status):
    headers = {"Host": "localhost", name: value}
    assert bool(server_module.check_origin(headers, "127.0.0.1")) == (status == 403)


def test_a_link_may_open_the_page_and_nothing_else_may():
    link = {"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert not server_module.check_origin(link, "127.0.0.1", "GET")
    assert server_module.check_origin(link, "127.0.0.1", "POST")  # a form
    for kind in ("script", "iframe", "empty", "image"):
        assert server_module.check_origin(link | {"Sec-Fetch-Dest": kind}, "127.0.0.1", "GET")


def test_a_client_of_wsproto_is_understood(server, released):
    """An independent implementation of RFC 6455: fragments, pings, both directions, and the close."""
    wsproto = pytest.importorskip("wsproto", reason="pip install wsproto")
    events = wsproto.events
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    host = "{}:{}".format(*server.server_address)
    sound = soundfile.read(ENGLISH, dtype="float32")[0].tobytes()
    found, heard = collections.defaultdict(list), 0
    with socket.create_connection(server.server_address, timeout=60) as connection:
        connection.sendall(client.send(events.Request(host=host, target="/api/live")))
        sending = [
            events.TextMessage('{"voice": ', message_finished=False),
            events.TextMessage('"boris"}'),
            events.Ping(b"here?"),
            *(
                events.BytesMessage(sound[start : start + 6400])
                for start in range(0, len(sound), 6400)
            ),
            events.TextMessage('{"end": true}'),
        ]
        while client.state is not wsproto.connection.ConnectionState.CLOSED:
            client.receive_data(connection.recv(1 << 16) or None)
            for event in client.events():
                found[type(event)].append(event)
                if isinstance(event, events.AcceptConnection):
                    for message in sending:
                        connection.sendall(client.send(message))
                if isinstance(event, events.BytesMessage):
                    heard += len(event.data)
                if isinstance(event, events.CloseConnection):
                    connection.sendall(client.send(event.response()))
    assert found[events.Pong][0].payload == b"here?"
    assert [json.loads(event.data) for event in found[events.TextMessage]][-1] == {"ended": True}
    assert heard == len(sound) and found[events.CloseConnection][0].code == 1000


def test_a_client_that_begins_again_and_again_is_slowed(server, released, monkeypatch):
    begun = []
    start_live = PlaySession.start_live
    monkeypatch.setattr(
        PlaySession,
        "start_live",
        lambda self, *values: begun.append(1) or start_live(self, *values),
    )
    flood, began = FLOODS["sockets that begin again and again"], time.monotonic()
    attacker = attacks.Attacker(server.server_address, flood, collections.Counter())
    wait_until(lambda: attacker.step() or len(begun) > MAX_AHEAD / TEXT_SECONDS + 2)
    assert time.monotonic() - began > 2 * TEXT_SECONDS
    attacker.close()


def test_live_work_and_other_work_take_turns():
    turns, done, begun, go = Turns(), [], threading.Event(), threading.Event()
    threads = [threading.Thread(target=turns.run, args=(lambda: (begun.set(), go.wait()),))]
    for number, live in enumerate([False, False, False, True, True]):
        name = f"{'live' if live else 'upload'} {number}"
        threads.append(
            threading.Thread(target=turns.run, args=(lambda n=name: done.append(n), live))
        )
    for count, thread in enumerate(threads):
        thread.start()
        begun.wait()  # then the first one waits no more
        wait_until(lambda n=count: sum(map(len, turns._waiting.values())) >= n)
    go.set()
    for thread in threads:
        thread.join()
    assert done == ["live 3", "upload 0", "live 4", "upload 1", "upload 2"]
    with pytest.raises(ZeroDivisionError):
        turns.run(lambda: 1 / 0)
    busy, go = threading.Event(), threading.Event()
    work = threading.Thread(target=turns.run, args=(lambda: (busy.set(), go.wait()),))
    work.start()
    busy.wait()
    closing = threading.Thread(target=turns.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()  # until the work is done: Python must not end while torch runs
    go.set()
    closing.join()
    work.join()
    assert not turns._thread.is_alive()


@pytest.mark.slow
def test_fifty_uploads_and_ten_silent_hours(tmp_path):
    """The benchmark with its real numbers, and one flood."""
    bundle = save_tiny_bundle(tmp_path / "bundle")
    for only, answers in (("uploads", {"200": 50}), ("bytes", {"400": 8}), ("that ping", None)):
        command = [sys.executable, BENCHMARK, "--bundle", bundle, "--only", only, "--seconds", "60"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for row in map(json.loads, lines.splitlines()):
            assert answers in (None, row["answers"]) and row["honest"]["refused"] == {}
            assert row["after"]["threads"] <= row["before"]["threads"]
            assert row["after"]["files"] <= row["before"]["files"]
            assert row["peak"]["MB"] < row["before"]["MB"] + 1500
