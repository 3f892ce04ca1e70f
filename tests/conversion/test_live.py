"""Live conversion: the result of whole utterances, in bounded memory, with nothing lost."""

import io
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny_voices import ENGLISH, RUSSIAN, STATISTICS, save_kmeans, save_tiny_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.conversion.convert import Controls, convert
from fairseq_resynth.conversion.live import LiveConverter, LiveQueue, LiveWindow
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample
from fairseq_resynth.data.audio.pcm import sinc_resample, to_pcm
from fairseq_resynth.data.streams import StreamSpec
from fairseq_resynth.encoders.content import ContentEncoder
from fairseq_resynth.inference.bundle import Bundle
from fairseq_resynth.modules.architectures import UnitSourceFilterSizes, build_vocoder
from fairseq_resynth.modules.generators.source_filter import pulse_phase
from fairseq_resynth.resynthesizer import Resynthesizer

WINDOW = LiveWindow(step=0.1, look_ahead=0.3, look_back=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_bundle(tmp_path_factory.mktemp("live") / "bundle")


@pytest.fixture(scope="module")
def system(folder):
    return Resynthesizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pulses(folder):
    """A source-filter vocoder on units and continuous F0, whose steps have to continue the phase."""
    torch.manual_seed(1)
    streams = StreamSpec(
        160,
        20,
        f0_channels=2,
        f0_codes={"representation": "continuous", "f0_channels": 2},
        speakers=("anna", "boris"),
        speaker_statistics=STATISTICS,
    )
    model = UnitSourceFilterSizes(embedding_dim=8, dim=16, intermediate_dim=32, num_layers=1)
    generator = build_vocoder(model, streams).eval()
    head = generator.generator.pitch_head.convs[-1]
    with torch.no_grad():
        head.weight[0] *= 20  # F0 that depends on all that the head looks at
        head.weight[1] = 0
        head.bias.copy_(torch.tensor([0.1, 2.0]))  # voiced, around 160 Hz
    kmeans = save_kmeans(folder.parent)
    return Resynthesizer(Bundle(generator, model, streams), ContentEncoder.from_kmeans(kmeans))


@pytest.fixture(scope="module")
def wav():
    return load_any_audio(ENGLISH)[0]


def live(converter, wav, sizes=(777,), rate=16000):
    """Converts in pieces of these sizes, over and over."""
    pieces, start, turn = [], 0, 0
    while start < len(wav):
        size = sizes[turn % len(sizes)]
        pieces.append(converter.push(wav[start : start + size], rate))
        start, turn = start + size, turn + 1
    return np.concatenate([*pieces, converter.flush()])


def test_how_the_stream_is_cut_changes_no_sample(system, wav):
    converter = LiveConverter(system, "boris", "anna", window=WINDOW)
    whole = live(converter, wav, (len(wav),))
    assert len(whole) == len(wav) and converter.delay == pytest.approx(0.4)
    np.testing.assert_array_equal(live(converter, wav, (1, 5000, 160, 33)), whole)


@pytest.mark.parametrize("kind", ["system", "pulses"])
def test_it_equals_the_conversion_of_the_whole(request, monkeypatch, wav, kind):
    """With F0 that does not depend on the window, and a look-ahead that has all that the decoder looks at."""
    system = request.getfixturevalue(kind)
    constant = lambda wav, method="": np.full(-(-len(wav) // 80), 150, np.float32)  # noqa: E731
    monkeypatch.setattr("fairseq_resynth.conversion.live.extract_f0", constant)
    monkeypatch.setattr(system.pitch, "extract", constant)
    whole = convert(system, wav, "boris", "anna").wav
    found = live(LiveConverter(system, "boris", "anna", window=WINDOW), wav)
    # the end has another context: silence instead of nothing
    inner = len(whole) - 16000 // 2
    np.testing.assert_allclose(found[:inner], whole[:inner], atol=1e-4)


def test_a_short_look_ahead_still_joins_in_phase(monkeypatch, pulses, wav):
    """The pulses continue at every seam, although the F0 before it is another one in the next window."""
    windows = []

    def recorded(f0, gate, sample_rate, clock):
        start = clock.start
        phase = pulse_phase(f0, gate, sample_rate, clock)
        windows.append((start, phase[0].numpy(), f0[0].numpy()))
        return phase

    monkeypatch.setattr("fairseq_resynth.modules.generators.source_filter.pulse_phase", recorded)
    window = LiveWindow(step=0.1, look_ahead=0.04, look_back=1.0)
    converter = LiveConverter(pulses, "boris", "anna", window=window)
    live(converter, wav)
    differs = False
    for number in range(1, len(windows)):
        seam = number * converter.step
        (start, before, f0), (following, after, other) = windows[number - 1 : number + 1]
        assert before[seam - start] == pytest.approx(after[seam - following], abs=1e-9)
        past = seam - 800
        differs |= past >= following and f0[past - start] != other[past - following]
    assert differs


def test_an_unknown_speaker_is_measured_while_speaking(system):
    russian = load_any_audio(RUSSIAN)[0]
    converter = LiveConverter(system, "boris", window=WINDOW)
    heard = []
    original = system.pitch.encode
    try:
        system.pitch.encode = lambda f0, *rest: heard.append(f0) or original(f0, *rest)
        live(converter, russian)
    finally:
        del system.pitch.encode
    late = np.concatenate([f0[-40:] for f0 in heard[10:]])
    assert abs(late[late > 0].mean() - 120) < 12


def test_pitch_controls(system, wav):
    heard = {}
    original = system.pitch.encode
    for pitch in (None, "shift=+3st", "flatten"):
        converter = LiveConverter(system, "boris", "anna", Controls(pitch), WINDOW)
        frames = heard[pitch] = []
        try:
            system.pitch.encode = lambda f0, *rest, to=frames: to.append(f0) or original(f0, *rest)
            live(converter, wav)
        finally:
            del system.pitch.encode
    plain, shifted, flat = (np.concatenate(frames) for frames in heard.values())
    voiced = plain > 0
    np.testing.assert_allclose(12 * np.log2(shifted[voiced] / plain[voiced]), 3, atol=1e-3)
    assert set(np.unique(flat)) == {0, 120}


def test_memory_does_not_grow(system):
    """The arrays that a converter holds after a minute are as large as after two seconds."""
    converter, sizes = LiveConverter(system, "boris", window=WINDOW), []
    for _ in range(7):
        converter.push(0.01 * np.ones(16000, np.float32))
        chunks = converter._chunks
        sizes.append(
            [len(converter._held), len(converter._f0), len(chunks._units), chunks._pitch.size]
        )
    assert sizes[-1] == sizes[3]


def test_silence_nothing_and_single_samples(system):
    converter = LiveConverter(system, "boris", window=WINDOW)
    assert len(converter.flush()) == 0
    assert len(live(converter, np.zeros(1, np.float32))) == 1
    silence = live(converter, np.zeros(20000, np.float32))
    assert len(silence) == 20000 and np.isfinite(silence).all()


def test_a_change_of_rate_loses_nothing(system, wav):
    converter = LiveConverter(system, "boris", "anna", window=WINDOW)
    wav = wav[8000:16000]
    fast = resample(wav, 16000, 48000)
    found = np.concatenate(
        [converter.push(wav), converter.push(fast, 48000), converter.push(wav), converter.flush()]
    )
    expected = live(converter, np.concatenate([wav, sinc_resample(fast, 48000), wav]))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    high = live(LiveConverter(system, "boris", "anna", window=WINDOW, output_rate=48000), wav)
    assert abs(len(high) - 3 * len(wav)) <= 3


def test_what_cannot_be_live_is_refused(system, wav):
    def refused(match, *args, **options):
        with pytest.raises(ValueError, match=match):
            LiveConverter(system, *args, **options)

    refused("--rate needs the whole utterance", "boris", None, Controls(rate=0.5))
    refused("--durations needs", "boris", None, Controls(durations="predicted"))
    refused("--pitch from=", "boris", None, Controls(pitch="from=a.wav"))
    refused("look-ahead is 0.02 s", "boris", window=LiveWindow(look_ahead=0.02))
    refused("carl", "carl")
    with pytest.raises(ValueError, match="step is 9 s, expected 0.01 to 2 s"):
        LiveWindow(step=9)
    converter = LiveConverter(system, "boris", window=WINDOW)
    with pytest.raises(ValueError, match="expected \\(n,\\) finite"):
        converter.push(np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="44101 Hz"):
        converter.push(wav, 44101)
    assert len(live(converter, wav)) == len(wav)


def pipe(monkeypatch, capfdbinary, folder, data, *options):
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=out, flush=lambda: None))
    command = ["convert", "--stream", "--bundle", str(folder), "--target", "boris", *options]
    status = main(command)
    monkeypatch.undo()
    return status, out.getvalue(), capfdbinary.readouterr().err.decode()


def test_a_pipe_of_any_rate(monkeypatch, capfdbinary, folder, system, wav):
    stream = io.BytesIO()
    soundfile.write(stream, resample(wav, 16000, 48000), 48000, format="WAV")
    status, data, _ = pipe(monkeypatch, capfdbinary, folder, stream.getvalue(), "--step", "0.1")
    assert status == 0 and data[:4] == b"RIFF"
    found = np.frombuffer(data[44:], "<i2") / 32768
    converter = LiveConverter(system, "boris", window=LiveWindow(0.1), output_rate=48000)
    heard = soundfile.read(io.BytesIO(stream.getvalue()), dtype="float32")[0]
    expected = live(converter, heard, (999,), 48000)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    raw = resample(wav, 16000, 8000)
    status, data, _ = pipe(
        monkeypatch, capfdbinary, folder, to_pcm(raw), "--step", "0.1", "--raw-rate", "8000"
    )
    assert status == 0 and len(data) == 2 * len(raw)


def test_mistakes_on_pipes_are_one_sentence_and_lose_nothing(monkeypatch, capfdbinary, folder, wav):
    stream = io.BytesIO()
    soundfile.write(stream, wav, 16000, format="WAV")
    cut = stream.getvalue()[:-8001]
    status, data, err = pipe(monkeypatch, capfdbinary, folder, cut)
    assert status == 2 and len(data) - 44 == (len(cut) - 44) // 2 * 2
    assert "ends within a sample" in err and err.count("\n") == 1
    status, data, err = pipe(monkeypatch, capfdbinary, folder, b"", "--rate", "0.5")
    assert status == 2 and "leave --rate out" in err and not data
    assert main(["convert", "--bundle", str(folder)]) == 2
    assert "--stream" in capfdbinary.readouterr().err.decode()


class Slow:
    """A converter that takes its time, and returns what it gets."""

    step = 1600

    def __init__(self, seconds):
        self.seconds = seconds

    def push(self, samples, rate):
        time.sleep(self.seconds)
        return samples


def test_a_queue_that_falls_behind_says_so_and_drops_nothing():
    said, numbers = [], np.arange(1, 16001, dtype=np.float32)
    queue = LiveQueue(Slow(0.02), 16000, said.append)
    for piece in np.split(numbers, 20):
        queue.put(piece)
    taken = []
    while sum(map(len, taken)) < len(numbers):
        taken.append(queue.take(1600))
        taken[-1] = taken[-1][taken[-1] > 0]
        time.sleep(0.01)
    np.testing.assert_array_equal(np.concatenate(taken), numbers)
    assert queue.waiting == 0 and queue.seconds == 1
    queue.close()
    assert len(said) == 1 and "falls behind: 0." in said[0]


def test_a_queue_asks_once_about_silence():
    said = []
    queue = LiveQueue(Slow(0), 16000, said.append)
    for _ in range(70):
        queue.put(np.zeros(1600, np.float32))
        while queue.waiting:
            time.sleep(0.001)
    queue.close()
    assert said == ["the input is silent for 3 s: is the microphone on?"]


@pytest.mark.parametrize("ahead", [0.04, 0.3])
def test_it_equals_the_same_windows_decoded_alone(system, wav, ahead):
    """Each step beside all that is settled and its provisional future, decoded at once without chunks."""
    window = LiveWindow(step=0.1, look_ahead=ahead, look_back=1.0)
    converter, seen = LiveConverter(system, "boris", "anna", window=window), []
    push = converter._chunks.push_settled

    def recorded(settled, units, f0):
        seen.append((settled, units, f0))
        return push(settled, units, f0=f0)

    converter._chunks.push_settled = recorded
    found = converter.push(wav[:16000])
    units, f0, hop = np.zeros(0, np.int64), np.zeros((2, 0), np.float32), 160
    vector = converter.voice.speaker
    for number, (settled, window_units, window_f0) in enumerate(seen):
        ours = np.append(units, window_units), np.append(f0, window_f0, axis=1)
        alone = system.decode(ours[0][None], None, vector, f0=ours[1][None])[0, 0]
        step = slice(number * converter.step, (number + 1) * converter.step)
        np.testing.assert_allclose(found[step], alone[step], atol=1e-4)
        units = ours[0][: len(units) + settled]
        f0 = ours[1][:, : len(units) * hop // 80]


@pytest.mark.slow
def test_memory_is_constant_over_an_hour(system):
    """The process grows by less than 4 MB between the tenth minute and the last."""
    window = LiveWindow(step=0.8, look_ahead=0.1, look_back=0.5)
    converter, resident = LiveConverter(system, "boris", window=window, output_rate=44100), []
    speech = load_any_audio(RUSSIAN)[0]
    minute = np.resize(resample(speech, 16000, 44100), 60 * 44100)
    received = 0
    for _ in range(60):
        for second in np.split(minute, 60):
            received += len(converter.push(second, 44100))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
    assert received > 3598 * 44100
    assert resident[-1] - resident[9] < 4, resident
