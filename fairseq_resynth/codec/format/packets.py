"""Packets: pieces of a stream that decode on their own, and their framing on a pipe or in a file.

A packet is one byte of its number modulo 256, the coded streams, and a checksum of two bytes, CRC-16 of the
identity, the number and the streams. `docs/codec_format.md` specifies it.
"""

import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel, Settings
from fairseq_resynth.codec.entropy.integer_math import PROBABILITY_ONE
from fairseq_resynth.codec.format.bitstream import Integers, stream_values
from fairseq_resynth.codec.format.payload import Need, PayloadCoder, encode_steps
from fairseq_resynth.codec.format.range_coder import (
    ByteDecoder,
    ByteEncoder,
    CodecError,
    binary_frequencies,
    uniform_frequencies,
)

NUMBERS = 256  # packet numbers are sent modulo this
OVERHEAD_BYTES = 3  # the number and the checksum
FEW_PERIODS, MORE_PERIODS = 63, 4096  # up to 63 take 6 bits, up to 4159 take 18
LONGEST_PART = 254  # bytes between zeros in a frame
LONGEST_FRAME = 1 << 16  # bytes; what has no zero for longer is none
_FEW, _MORE = uniform_frequencies(FEW_PERIODS + 1), uniform_frequencies(MORE_PERIODS)
_LAST = binary_frequencies(PROBABILITY_ONE >> 6)


@dataclass(frozen=True)
class PacketFormat:
    """What sender and receiver share: the context model, the 16 bytes that name bundle and model, and the
    number of speakers in the bundle's table."""

    model: EntropyModel
    identity: bytes
    num_speakers: int = 0

    def seal(self, data: bytes) -> bytes:
        """The two bytes of the checksum, inverted: without that, zero bytes added at the end of a packet, or
        cut off there, would leave it valid."""
        start = binascii.crc_hqx(self.identity, 0xFFFF)
        return (binascii.crc_hqx(data, start) ^ 0xFFFF).to_bytes(2, "big")


@dataclass(frozen=True)
class Packet:
    """The content of a packet."""

    number: int  # 0 … 255
    units: np.ndarray  # (U,) int64
    f0_codes: np.ndarray  # (F,) int64, empty without an F0 stream
    full_units: int  # number of units in every packet of the stream but the last
    speaker: int | None = None  # row in the bundle's table
    # Of the waveform from the first unit on, in the last packet alone.
    num_samples: int | None = None


def _code_head(
    coder: ByteEncoder | ByteDecoder, num_speakers: int, values: tuple[int | None, ...]
) -> tuple[int, int, int]:
    """Codes (speaker + 1, periods of a full packet, whether it is the last); all None to decode them."""
    speaker, periods, last = values
    speaker = coder.code(uniform_frequencies(num_speakers + 1), speaker)
    few = None if periods is None else min(periods - 1, FEW_PERIODS)
    few = coder.code(_FEW, few)
    if few == FEW_PERIODS:
        more = None if periods is None else periods - 1 - FEW_PERIODS
        few += coder.code(_MORE, more)
    return speaker, few + 1, coder.code(_LAST, last)


def write_packet(form: PacketFormat, packet: Packet) -> bytes:
    """The bytes of a packet."""
    settings, encoder = form.model.settings, ByteEncoder()
    last = packet.num_samples is not None
    speaker = 0 if packet.speaker is None else packet.speaker + 1
    periods = packet.full_units // settings.units_per_period
    _code_head(encoder, form.num_speakers, (speaker, periods, int(last)))
    coder = PayloadCoder(form.model, encoder, bool(settings.num_f0_codes), packet.number > 0)
    steps = coder.steps(None if last else packet.full_units)
    encode_steps(steps, packet.units.tolist(), packet.f0_codes.tolist(), packet.num_samples)
    data = bytes([packet.number]) + encoder.finish()
    return data + form.seal(data)


def read_packet(form: PacketFormat, data: bytes) -> Packet:
    """Inverse of `write_packet`. Raises CodecError if the bytes are damaged or of another bundle."""
    settings, decoder = form.model.settings, ByteDecoder()
    if len(data) < OVERHEAD_BYTES or form.seal(data[:-2]) != data[-2:]:
        raise CodecError("the packet is damaged, or was encoded with another bundle")
    decoder.feed(data[1:-2], complete=True)
    speaker, periods, last = _code_head(decoder, form.num_speakers, (None, None, None))
    full_units = periods * settings.units_per_period
    coder = PayloadCoder(form.model, decoder, bool(settings.num_f0_codes), data[0] > 0)
    for _ in coder.steps(None if last else full_units):
        pass
    decoder.finish()
    units, f0_codes = (np.array(stream, np.int64) for stream in (coder.units, coder.f0_codes))
    num_codes = settings.whole_f0_codes(full_units) if settings.num_f0_codes else 0
    if not last and (len(units), len(f0_codes)) != (full_units, num_codes):
        raise CodecError("the packet is damaged: its streams end before it does")
    if last and len(units) >= full_units + settings.units_per_period:
        raise CodecError("the packet is damaged: the last one is longer than the others")
    speaker = speaker - 1 if speaker else None
    return Packet(data[0], units, f0_codes, full_units, speaker, coder.num_samples)


class PacketWriter:
    """Cuts streams into packets of `seconds`, rounded to whole units and F0 codes; the bytes do not depend on
    how the streams arrive. Raises ValueError for an unknown speaker or packets that are too long."""

    def __init__(self, form: PacketFormat, seconds: float, speaker: int | None = None):
        if speaker is not None and not (np.ndim(speaker) == 0 and speaker < form.num_speakers):
            raise ValueError(
                "packets name one of the bundle's speakers, and this utterance has a speaker vector: leave "
                "it out, and give the voice to the decoder"
            )
        settings = form.model.settings
        self.full_units = packet_units(settings, seconds)
        self._full_codes = settings.whole_f0_codes(self.full_units) if settings.num_f0_codes else 0
        self._form, self._speaker, self._number = form, speaker, 0
        self._units = self._f0_codes = np.zeros(0, np.int64)

    def push(self, units: Integers = (), f0_codes: Integers = ()) -> list[bytes]:
        """Takes (n,) units and (m,) F0 codes; returns the packets that are full. Raises ValueError if a value
        is negative or too large."""
        self._units = np.append(self._units, stream_values(Need.UNIT, units))
        self._f0_codes = np.append(self._f0_codes, stream_values(Need.F0, f0_codes))
        packets = []
        while len(self._units) >= self.full_units and len(self._f0_codes) >= self._full_codes:
            packets.append(self._packet(self.full_units, self._full_codes))
        return packets

    def finish(self, num_samples: int | None = None) -> bytes:
        """The last packet, of a waveform of `num_samples` (None: units times their hop). Raises ValueError if
        there are fewer F0 codes than the units need."""
        if len(self._units) >= self.full_units:
            raise ValueError(
                f"found {len(self._f0_codes)} F0 codes for the last {len(self._units)} units, packets of "
                f"{self.full_units} units need {self._full_codes}"
            )
        hop = self._form.model.settings.unit_hop
        sent = self._number * self.full_units * hop
        count = sent + len(self._units) * hop if num_samples is None else num_samples
        return self._packet(len(self._units), len(self._f0_codes), count - sent)

    def _packet(self, units: int, f0_codes: int, num_samples: int | None = None) -> bytes:
        streams = self._units[:units], self._f0_codes[:f0_codes]
        self._units, self._f0_codes = self._units[units:], self._f0_codes[f0_codes:]
        number, self._number = self._number, self._number + 1
        packet = Packet(number % NUMBERS, *streams, self.full_units, self._speaker, num_samples)
        return write_packet(self._form, packet)


def packet_units(settings: Settings, seconds: float) -> int:
    """The units of a packet of so many seconds: whole periods of units and F0 codes, at least one. Raises
    ValueError if the packet would be too long, or has no length."""
    period = settings.units_per_period * settings.unit_hop / settings.sample_rate
    longest = period * (FEW_PERIODS + MORE_PERIODS)
    if not 0 < seconds <= longest:
        raise ValueError(f"found packets of {seconds} s, expected up to {longest:g} s")
    return max(1, round(seconds / period)) * settings.units_per_period


def frame_packets(packets: Iterable[bytes]) -> Iterator[bytes]:
    """Yields packets as `unframe_packets` reads them, after the zero by which a file of them begins."""
    yield b"\0"
    yield from map(_frame, packets)


def _frame(packet: bytes) -> bytes:
    """A packet for a pipe or a file: encoded without zeros by COBS (Cheshire and Baker 1999), then a zero,
    at which a reader finds its place again after damage. A transport of datagrams does not need it."""
    parts = [
        # A part of 254 bytes says that no zero follows it, and so the last part of a block is shorter.
        block[start : start + LONGEST_PART]
        for block in packet.split(b"\0")
        for start in range(0, len(block) + 1, LONGEST_PART)
    ]
    return b"".join(bytes([len(part) + 1]) + part for part in parts) + b"\0"


def unframe_packets(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the packets of framed bytes while they arrive. A damaged frame gives other bytes, which the
    checksum of the packet tells; empty frames, as at the start of a file, are skipped."""
    held = b""
    for piece in pieces:
        *frames, held = (held + piece).split(b"\0")
        yield from (_unframe(frame) for frame in frames if frame)
        held = held[-LONGEST_FRAME:]
    if held:
        yield _unframe(held)


def _unframe(frame: bytes) -> bytes:
    packet, place = b"", 0
    while place < len(frame):
        size = frame[place]
        packet += frame[place + 1 : place + size] + b"\0" * (size <= LONGEST_PART)
        place += size
    return packet[:-1]
