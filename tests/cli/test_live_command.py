"""`resynth live` on a sound card that exists only here."""

import json
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_voices import ENGLISH, save_tiny_bundle

from fairseq_resynth.cli.main import main
from fairseq_resynth.data.audio.decoding import load_any_audio
from fairseq_resynth.data.audio.files import resample

SPEECH = load_any_audio(ENGLISH)[0]


class PortAudioError(Exception):
    pass


class Devices(list):
    def __str__(self):
        return "\n".join(device["name"] for device in self)


def device(index, name, inputs, outputs):
    return {
        "index": index,
        "name": name,
        "max_input_channels": inputs,
        "max_output_channels": outputs,
        "default_samplerate": 48000.0,
    }


class SoundCard(SimpleNamespace):
    """The part of sounddevice that the verb uses. The microphone plays `heard` at twice the speed of time;
    `spoken` is what the loudspeaker got."""

    PortAudioError = PortAudioError

    def __init__(self, rates=(16000,), heard=SPEECH, fails=None):
        super().__init__(rates=rates, heard=heard, fails=fails, spoken=[], active=True)
        self.devices = Devices([device(0, "microphone", 1, 0), device(1, "loudspeaker", 0, 2)])

    def query_devices(self, name=None, kind=None):
        if kind is None:
            return self.devices
        if not self.devices:
            raise PortAudioError("Error querying device -1")
        if isinstance(name, str):
            found = [device for device in self.devices if name in device["name"]]
            if not found:
                raise ValueError(f"No {kind} device matching {name!r}")
            return found[0]
        return self.devices[("input", "output").index(kind) if name is None else name]

    def check_input_settings(self, index, channels, dtype, samplerate):
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    check_output_settings = check_input_settings

    def Stream(self, samplerate, device, channels, dtype, callback):
        self.samplerate, self.channels, self.callback = samplerate, channels, callback
        return self

    def __enter__(self):
        if self.fails:
            raise PortAudioError(self.fails)
        self.active = True
        self.thread = threading.Thread(target=self.play, daemon=True)
        self.thread.start()

    def __exit__(self, *error):
        self.active = False
        self.thread.join()

    def play(self):
        start, size = 0, self.samplerate // 50
        while self.active:
            piece = self.heard[start : start + size]
            piece = np.pad(piece, (0, size - len(piece)))
            spoken = np.zeros((size, self.channels[1]), np.float32)
            status = SimpleNamespace(input_overflow=start == 0)
            self.callback(piece[:, None].astype(np.float32), spoken, size, None, status)
            self.spoken.append(spoken[:, 0])
            start += size
            time.sleep(0.01)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_tiny_bundle(tmp_path_factory.mktemp("live_command") / "bundle")


def live(monkeypatch, capsys, card, *options):
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    capsys.readouterr()
    status = main(["live", *map(str, options)])
    return (status, *capsys.readouterr())


@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_microphone_is_heard_in_another_voice(monkeypatch, capsys, bundle, rate):
    card = SoundCard((rate,), resample(SPEECH, 16000, rate))
    options = ["--bundle", bundle, "--target", "boris", "--seconds", 1.5, "--json"]
    status, out, err = live(monkeypatch, capsys, card, *options)
    assert status == 0 and json.loads(out)["rate"] == rate and json.loads(out)["seconds"] > 0.5
    assert f"microphone to loudspeaker at {rate} Hz, delay 0.40 s" in err
    assert "the sound device lost samples" in err
    spoken = np.concatenate(card.spoken)
    assert np.abs(spoken[: round(0.4 * rate)]).max() == 0 < np.abs(spoken).max()


def test_devices_are_listed_and_chosen(monkeypatch, capsys, bundle):
    card = SoundCard()
    assert live(monkeypatch, capsys, card, "--list-devices")[1] == "microphone\nloudspeaker\n"
    status, out, _ = live(monkeypatch, capsys, card, "--list-devices", "--json")
    assert json.loads(out)["devices"][1]["name"] == "loudspeaker"
    options = ["--bundle", bundle, "--target", "boris", "--seconds", 0.2, "--output-device"]
    assert live(monkeypatch, capsys, card, *options, "speaker")[0] == 0
    assert live(monkeypatch, capsys, card, *options, "1")[0] == 0


def test_mistakes_are_one_sentence(monkeypatch, capsys, bundle):
    def error(card, *options):
        options = ["--bundle", bundle, "--target", "boris", "--seconds", 5, *options]
        status, _, err = live(monkeypatch, capsys, card, *options)
        last = err.strip().splitlines()[-1]
        assert status == 2 and last.startswith("resynth live: error: ") and "Traceback" not in err
        return last

    empty = SoundCard()
    empty.devices.clear()
    assert "no microphone found, the system's default: Error querying" in error(empty)
    assert "--input-device usb: No input device" in error(SoundCard(), "--input-device", "usb")
    assert "loudspeaker has no input" in error(SoundCard(), "--input-device", "1")
    assert "no sample rate in common: Invalid" in error(SoundCard(rates=()))
    assert "the sound device stopped: Device unavailable" in error(
        SoundCard(fails="Device unavailable")
    )
    unplugged = SoundCard()
    unplugged.play = lambda: setattr(unplugged, "active", False)
    assert "was it unplugged?" in error(unplugged)
    noise = SoundCard(heard=np.full(16000, np.nan))
    assert "expected (n,) finite numbers" in error(noise)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["live"]) == 2
    assert "pip install 'fairseq_resynth[live]'" in capsys.readouterr().err
