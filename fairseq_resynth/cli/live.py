"""Convert the microphone to the loudspeaker while somebody speaks. Use headphones, or it hears itself.

    resynth live --list-devices
    resynth live --bundle BUNDLE --target NAME --pitch shift=+3st

Ctrl+C ends. Needs `pip install 'fairseq_resynth[live]'` and, on Linux, libportaudio2.
"""

import argparse
import sys
import time

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add.bundle()
    add(
        "--target NAME|REF.wav[,MORE.wav]",
        "output voice: a speaker of the model, or recordings of anybody",
    )
    add.shared("--speaker")
    add("--pitch P", "shift=+3st, scale=1.2 or flatten")
    add("--list-devices", "print the sound devices and end", False)
    add("--input-device D", "microphone: number or part of the name (default: the system's)")
    add("--output-device D", "loudspeaker: number or part of the name (default: the system's)")
    add("--seconds S", "end after this time; default: with Ctrl+C", type=float)
    common.add_live_options(add)
    add.tokens()
    add.shared("--content-checkpoint", "--device", "--json")


def run(args: argparse.Namespace) -> int:
    """Converts until it is stopped, and prints for how long."""
    sound = _sounddevice()
    if args.list_devices:
        devices = [dict(device) for device in sound.query_devices()]
        listed = str(sound.query_devices()) if devices else "no sound device was found"
        return common.report(args, {"devices": devices}, [listed])
    devices = [
        _find_device(sound, kind, getattr(args, f"{kind}_device")) for kind in ("input", "output")
    ]
    from fairseq_resynth.conversion.folders import parse_target
    from fairseq_resynth.conversion.live import LiveQueue

    rate, channels = _settings(sound, devices)
    target = parse_target(args.target) if args.target else None
    converter = common.live_converter(args, target, rate)
    queue = LiveQueue(converter, rate, _warn)

    def hear_and_speak(heard, spoken, frames, times, status) -> None:
        if status.input_overflow:
            _warn("the sound device lost samples of the microphone")
        queue.put(heard[:, 0].copy())
        spoken[:] = queue.take(frames)[:, None]

    stream = sound.Stream(
        samplerate=rate,
        device=[device["index"] for device in devices],
        channels=channels,
        dtype="float32",
        callback=hear_and_speak,
    )
    print(
        f"{devices[0]['name']} to {devices[1]['name']} at {rate} Hz, delay {converter.delay:.2f} s and "
        "the time to compute  (Ctrl+C ends)",
        file=sys.stderr,
    )
    try:
        with stream:
            _wait(stream, queue, args.seconds)
    except sound.PortAudioError as error:
        raise ValueError(f"the sound device stopped: {_reason(error)}") from error
    queue.close()
    summary = {"seconds": round(queue.seconds, 2), "delay": converter.delay, "rate": rate}
    return common.report(args, summary, [f"{queue.seconds:.1f} s were converted"])


def _wait(stream, queue, seconds: float | None) -> None:
    end = time.monotonic() + (seconds or float("inf"))
    try:
        while time.monotonic() < end:
            if queue.error is not None:
                queue.close()
            if not stream.active:
                raise ValueError("the sound device stopped: was it unplugged?")
            time.sleep(0.05)
    except KeyboardInterrupt:
        pass


def _warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def _sounddevice():
    try:
        import sounddevice
    except ImportError as error:
        raise ValueError(
            "resynth live needs sounddevice: pip install 'fairseq_resynth[live]'"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{error}: install it, on Debian and Ubuntu with `apt-get install libportaudio2`"
        ) from error
    return sounddevice


def _reason(error: Exception) -> str:
    return str(error.args[0] if error.args else error)


def _find_device(sound, kind: str, wanted: str | None) -> dict:
    """The input or output device of a number or a part of a name; None for the system's default."""
    what = "microphone" if kind == "input" else "loudspeaker"
    name = int(wanted) if wanted and wanted.isdigit() else wanted
    found = None
    try:
        found = dict(sound.query_devices(name, kind))
    except (sound.PortAudioError, ValueError) as error:
        reason = _reason(error)
    if not found or not found[f"max_{kind}_channels"]:
        reason = reason if not found else f"{found['name']} has no {kind}"
        asked = f"--{kind}-device {wanted}" if wanted else "the system's default"
        raise ValueError(
            f"no {what} found, {asked}: {reason}. `resynth live --list-devices` shows what there is"
        )
    return found


def _settings(sound, devices: list[dict]) -> tuple[int, list[int]]:
    """The sample rate that both devices take, 16 kHz where possible, and their channels, mono if possible."""
    problem: Exception | None = None
    for rate in (16000, int(devices[0]["default_samplerate"]), 48000, 44100):
        for most in (1, 2):
            channels = [
                min(most, device[f"max_{kind}_channels"])
                for kind, device in zip(("input", "output"), devices, strict=True)
            ]
            try:
                for kind, device, count in zip(("input", "output"), devices, channels, strict=True):
                    check = getattr(sound, f"check_{kind}_settings")
                    check(device["index"], channels=count, dtype="float32", samplerate=rate)
                return rate, channels
            except (sound.PortAudioError, ValueError) as error:
                problem = error
    names = " and ".join(device["name"] for device in devices)
    raise ValueError(f"{names} have no sample rate in common: {_reason(problem)}")
