"""Packets as they arrive: their order, which are damaged or doubled, and what fills the gaps."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.format.packets import NUMBERS, Packet
from fairseq_resynth.codec.format.range_coder import CodecError

LONGEST_GAP = 600.0  # seconds that are filled; a forged packet of 60 bytes could claim hours
FADE_OUT, FADE_IN = 0.06, 0.005  # seconds, of the sound before a gap and after it


@dataclass
class Reception:
    """What arrived. Packets are counted from 0 on, on and on."""

    arrived: int = 0  # with those that were damaged or came again
    speech: int = 0  # packets that are spoken
    missing: list[int] = field(default_factory=list)  # never came whole, or too late
    damaged: list[int] = field(default_factory=list)  # places in the order of arrival, from 1
    doubled: list[int] = field(default_factory=list)  # came again
    late: list[int] = field(default_factory=list)  # came after they had been given up
    # Places in the order of arrival of packets of another stream: their number was another's.
    foreign: list[int] = field(default_factory=list)
    ended: bool = False  # whether the last packet came

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return dict(vars(self))

    def text(self) -> str:
        """What arrived and what did not, in one line."""
        parts = [f"{self.speech} of {self.speech + len(self.missing)} packets"]
        for name in ("missing", "doubled", "late"):
            if numbers := getattr(self, name):
                parts.append(f"{name}: {ranges(numbers)}")
        for name in ("damaged", "foreign"):
            if places := getattr(self, name):
                parts.append(f"{name}: {len(places)} (arrivals {ranges(places)})")
        if not self.ended:
            parts.append("the last packet is missing, so more may be")
        return "; ".join(parts)

    def check(self, conceal: bool) -> None:
        """Raises CodecError if no packet can be spoken; and if any is missing, unless they are concealed."""
        if not self.speech:
            raise CodecError(
                f"none of the {self.arrived} packets is whole and of this bundle: they are damaged, or "
                "another bundle encoded them"
            )
        if not conceal and (self.missing or self.foreign or not self.ended):
            raise CodecError(f"{self.text()}: --conceal speaks the rest")


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as text, those in succession as a range: `2, 5-7`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


class Receiver:
    """Puts packets in order. Each comes out with the number of those that are missing before it. A missing
    one is given up when more than `window` later ones have arrived; with None at the end. Up to 127 packets
    in succession may be missing."""

    def __init__(self, read: Callable[[bytes], Packet], window: int | None = None):
        if window is not None and not 0 <= window < NUMBERS // 2:
            raise ValueError(f"found a window of {window} packets, expected 0 to 127")
        self.reception = Reception()
        self._read, self._window = read, window
        self._held: dict[int, Packet] = {}  # by number, waiting for those before them
        self._checksums: dict[int, bytes] = {}  # of those that came, of the last numbers
        self._next, self._highest = 0, -1  # numbers of the next to come out, and of all that came
        self._gap = 0  # given up since the last one that came out
        self._sizes = Counter[int]()

    @property
    def full_units(self) -> int:
        """The number of units of a packet, as most of those that came say."""
        return self._sizes.most_common(1)[0][0]

    def push(self, data: bytes) -> list[tuple[int, Packet]]:
        """Takes the bytes of a packet; returns the packets whose turn it is, with the gap before each."""
        found = self.reception
        found.arrived += 1
        try:
            packet = self._read(data)
        except CodecError:
            found.damaged.append(found.arrived)
            return []
        number, checksum = self._place(packet.number), data[-2:]
        if (
            self._checksums.get(number, checksum) != checksum
            or found.ended
            and number >= self._next
        ):
            found.foreign.append(found.arrived)
        elif number in self._checksums:
            found.doubled.append(number)
        elif number < self._next:
            found.late.append(number)
        else:
            self._sizes[packet.full_units] += 1
            self._highest = max(self._highest, number)
            self._held[number], self._checksums[number] = packet, checksum
            return self._ready(self._window)
        return []

    def finish(self) -> list[tuple[int, Packet]]:
        """The packets that still wait, when no more will arrive."""
        return self._ready(0)

    def _place(self, number: int) -> int:
        """The number since the start of one that was sent modulo 256: that nearest to the highest so far."""
        if self._highest < 0:
            if self._window is not None:  # the receiver may have joined later
                self._next = max(number - self._window, 0)
                self.reception.missing.extend(range(self._next))
            return number
        half = NUMBERS // 2
        return self._highest + (number - self._highest + half) % NUMBERS - half

    def _ready(self, window: int | None) -> list[tuple[int, Packet]]:
        found = []
        while self._held and not self.reception.ended:
            if self._next not in self._held and (window is None or len(self._held) <= window):
                break
            packet = self._held.pop(self._next, None)
            # Another size: damage that the checksum failed to tell.
            if packet is None or packet.full_units != self.full_units:
                self.reception.missing.append(self._next)
                self._gap += 1
            else:
                self.reception.speech += 1
                self.reception.ended = packet.num_samples is not None
                found.append((self._gap, packet))
                self._gap = 0
            self._next += 1
            self._checksums.pop(self._next - NUMBERS // 2, None)
        return found


class GapFiller:
    """Fills gaps between packets, so that the rest stays in time: with the last unit and F0 code before, from
    the middle on with the first after. With `fade` their sound fades out, and silence follows."""

    def __init__(self, settings: Settings, fade: bool):
        self.num_units = 0  # so far
        self._settings, self._fade = settings, fade
        # The streams of the packet before.
        self._before: Sequence[np.ndarray] = np.zeros((2, 0), np.int64)
        self._gaps: list[tuple[int, int]] = []  # first sample, end

    def streams(self, gap: int, packet: Packet) -> tuple[np.ndarray, np.ndarray]:
        """The units and F0 codes of a gap of so many packets and of the packet after it. Raises CodecError
        for a gap of more than `LONGEST_GAP`."""
        units, f0_codes = packet.units, packet.f0_codes
        if gap:
            hop = self._settings.unit_hop
            count = gap * packet.full_units
            if (seconds := count * hop / self._settings.sample_rate) > LONGEST_GAP:
                raise CodecError(
                    f"{gap} packets in succession are missing, {seconds:.0f} s of speech: up to "
                    f"{LONGEST_GAP:.0f} s are filled. Decode the parts before and after them one by one."
                )
            codes = self._settings.whole_f0_codes(count) if self._settings.num_f0_codes else 0
            self._gaps.append((self.num_units * hop, (self.num_units + count) * hop))
            units = _bridge(self._before[0], units, count)
            f0_codes = _bridge(self._before[1], f0_codes, codes)
        if len(packet.units):
            self._before = packet.units, packet.f0_codes
        self.num_units += len(units)
        return units, f0_codes

    def faded(self, wav: np.ndarray, start: int = 0, rate: float = 1.0) -> np.ndarray:
        """(n,) samples from `start` on, of speech that is `rate` times as fast, with the gaps faded."""
        if not self._fade or not self._gaps:
            return wav
        place = (start + np.arange(len(wav))) * rate
        gain, out, back = np.ones(len(wav), np.float32), *self._fades()
        for first, end in self._gaps:
            falling = np.clip(1 - (place - first) / out, 0, 1) if first else 0.0
            rising = np.clip((place - end) / back, 0, 1)
            gain *= np.where(place < first, 1, np.where(place < end, falling, rising))
        self._gaps = [gap for gap in self._gaps if gap[1] + back > (start + len(wav)) * rate]
        return wav * gain

    def _fades(self) -> tuple[float, float]:
        return FADE_OUT * self._settings.sample_rate, FADE_IN * self._settings.sample_rate


def _bridge(before: np.ndarray, after: np.ndarray, count: int) -> np.ndarray:
    """(count + n,) int64: a gap of `count` values between streams, and the (n,) `after` it."""
    ends = before[-1:] if len(before) else after[:1], after[:1] if len(after) else before[-1:]
    left, right = (int(end[0]) if len(end) else 0 for end in ends)
    return np.r_[np.full(count // 2, left), np.full(count - count // 2, right), after]
