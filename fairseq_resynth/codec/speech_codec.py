"""The codec: speech to a few hundred bytes, `encode(wav) -> bytes`, and back, `decode(bytes) -> wav`."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.codec.blocks import BlockEncoder
from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.format import bitstream
from fairseq_resynth.codec.format.packets import Packet, PacketFormat, PacketWriter, read_packet
from fairseq_resynth.codec.format.payload import SAMPLES_MORE
from fairseq_resynth.codec.format.range_coder import CodecError
from fairseq_resynth.codec.reception import GapFiller, Receiver, Reception
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.conversion.prosody import change_pitch, change_rate
from fairseq_resynth.data.audio.files import fit_length
from fairseq_resynth.data.streams import Utterance
from fairseq_resynth.inference.bundle import ENTROPY_FILE
from fairseq_resynth.inference.decoder import OFFLINE_SECONDS, ChunkDecoder, units_in
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.inference.voices import Speaker, speaker_names
from fairseq_resynth.resynthesizer import Resynthesizer


class SpeechCodec:
    """A codec of speech, made of a bundle and its context model (or its file), fitted on the same units.
    `identity` is 16 bytes that name both: a file holds the first two, and its checksum depends on all.
    Raises ValueError if the bundle takes continuous F0, or other units or F0 codes than the model knows."""

    def __init__(self, resynthesizer: Resynthesizer, model: EntropyModel | Path):
        streams = resynthesizer.streams
        if streams.f0_channels:  # before its file is looked for, which such a bundle cannot have
            raise ValueError(
                f"the bundle's generator takes continuous F0 ({streams.f0_channels} channels at 200 Hz), "
                "which the codec cannot store: train one on F0 codes (`resynth quantize-f0`) or without "
                "pitch."
            )
        model = EntropyModel.load(model) if isinstance(model, Path) else model
        settings = model.settings
        for name in ("num_units", "unit_hop", "num_f0_codes"):
            if getattr(streams, name) != getattr(settings, name):
                raise ValueError(
                    f"the context model has {name} {getattr(settings, name)}, the bundle "
                    f"{getattr(streams, name)}. Fit it on the bundle's own units with `resynth fit-codec`."
                )
        self.resynthesizer, self.model = resynthesizer, model
        identities = resynthesizer.bundle.identity.encode() + model.identity
        self.identity = hashlib.blake2b(identities, digest_size=16).digest()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        content_checkpoint: str | Path | None = None,
        device: str | torch.device = "cpu",
        decode_only: bool = False,
    ) -> "SpeechCodec":
        """Loads a bundle that has an `entropy.safetensors`; arguments and errors are `Resynthesizer`'s."""
        folder = find_bundle(folder)
        system = Resynthesizer.from_pretrained(folder, content_checkpoint, device, decode_only)
        return cls(system, folder / ENTROPY_FILE)

    def encode(
        self,
        wav: np.ndarray | str | Path,
        speaker: str | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> bytes:
        """Compresses speech; arguments and errors are those of `Resynthesizer.encode`. Without a speaker the
        file has none, and the decoder has to choose one."""
        return self.pack(self.resynthesizer.encode(wav, speaker, sample_rate))

    def pack(self, speech: Utterance) -> bytes:
        """Compresses the streams of an utterance, as `encode` does those of a recording."""
        code = bitstream.SpeechCode(
            speech.units, speech.f0_codes, self._speaker_field(speech.speaker), speech.num_samples
        )
        return bitstream.write_bytes(self.model, self.identity, code)

    def decode(
        self,
        data: bytes,
        speaker: Speaker | None = None,
        pitch: str | None = None,
        rate: float = 1.0,
        checksum: bool = True,
        **tokens: str,
    ) -> np.ndarray:
        """Decompresses speech into (T,) float32 at 16 kHz, as long as the original divided by `rate`.

        Args:
            data: the bytes from `encode`.
            speaker: another voice, as name, index or (D,) vector; None takes the file's.
            pitch: `shift=+3st`, `scale=1.2` or `flatten`; None leaves it as it is.
            rate: of speaking, 0.25 to 4.
            checksum: False for a member of an archive.
            tokens: named tokens (`style`, `language`), for a model with several names of one.

        Raises CodecError if the bytes are damaged or another bundle's, and ValueError if this bundle has no
        such voice or cannot change what is asked for.
        """
        code = bitstream.read_bytes(self.model, self.identity, data, checksum)
        return self._speak(code, speaker, pitch, rate, tokens)

    def encode_packets(
        self,
        wav: np.ndarray | str | Path,
        speaker: str | None = None,
        seconds: float = 1.0,
        sample_rate: int = SAMPLE_RATE,
    ) -> list[bytes]:
        """Compresses speech into packets of `seconds`, each decodable on its own, of which a receiver may
        lose any; the other arguments and errors are those of `encode`."""
        return self.pack_packets(self.resynthesizer.encode(wav, speaker, sample_rate), seconds)

    def pack_packets(self, speech: Utterance, seconds: float = 1.0) -> list[bytes]:
        """Compresses the streams of an utterance into packets."""
        writer = self._packet_writer(speech.speaker, seconds)
        codes = () if speech.f0_codes is None else speech.f0_codes
        return [*writer.push(speech.units, codes), writer.finish(speech.num_samples)]

    def encode_packet_stream(
        self,
        audio: Iterable[np.ndarray],
        speaker: str | None = None,
        seconds: float = 1.0,
        block: float | None = None,
    ) -> Iterator[bytes]:
        """Yields packets of (n,) float32 pieces at 16 kHz while they arrive. The audio is encoded in blocks
        of `block` seconds, see `BlockEncoder`; None: those of a packet."""
        blocks = BlockEncoder(self.resynthesizer, speaker, block or seconds)
        writer = self._packet_writer(speaker, seconds)
        for units, f0_codes in blocks.encode(audio):
            yield from writer.push(units, f0_codes)
        yield writer.finish(blocks.num_samples)

    def decode_packets(
        self,
        packets: Iterable[bytes],
        speaker: Speaker | None = None,
        pitch: str | None = None,
        rate: float = 1.0,
        conceal: str | None = None,
        **tokens: str,
    ) -> tuple[np.ndarray, Reception]:
        """Decompresses packets in any order into speech, and tells what arrived.

        `conceal` says how missing packets are filled: `fade` (the last sound fades out) or `hold` (it goes
        on); with None one that is missing raises CodecError. The rest is as for `decode`.
        """
        receiver = self.receiver()
        found = [pair for data in packets for pair in receiver.push(data)] + receiver.finish()
        receiver.reception.check(_concealed(conceal))
        filler = GapFiller(self.model.settings, conceal == "fade")
        streams = [filler.streams(*pair) for pair in found]
        units, f0_codes = (np.concatenate(stream) for stream in zip(*streams, strict=True))
        speakers = Counter(packet.speaker for _, packet in found)
        code = bitstream.SpeechCode(
            units,
            f0_codes if self.model.settings.num_f0_codes else None,
            speakers.most_common(1)[0][0],
            self._num_samples(filler, found[-1][1]),
        )
        wav = self._speak(code, speaker, pitch, rate, tokens)
        return filler.faded(wav, rate=rate), receiver.reception

    def receiver(self, window: int | None = None) -> Receiver:
        """What puts packets in order and tells what arrived; see `Receiver`."""
        return Receiver(partial(read_packet, self._packet_format), window)

    def decode_packet_stream(
        self,
        packets: Iterable[bytes],
        receiver: Receiver,
        speaker: Speaker | None = None,
        conceal: str | None = None,
        chunk_units: int | None = None,
        **tokens: str,
    ) -> Iterator[np.ndarray]:
        """Decompresses packets while they arrive; yields (n,) float32 pieces, and `receiver.reception` tells
        what arrived. The delay is that of `decode_stream` and of the receiver's window. The rest is as for
        `decode_packets`."""
        filler, chunks, count = GapFiller(self.model.settings, conceal == "fade"), None, 0
        concealed, samples = _concealed(conceal), None
        for data in itertools.chain(packets, [None]):
            for gap, packet in receiver.finish() if data is None else receiver.push(data):
                if not concealed and receiver.reception.missing:
                    receiver.reception.check(concealed)
                if chunks is None:
                    voice = self._voice(packet.speaker, speaker)
                    chunks = ChunkDecoder(self.resynthesizer.decoder, voice, chunk_units, tokens)
                wav = chunks.push(*filler.streams(gap, packet))
                samples = self._num_samples(filler, packet)
                yield filler.faded(wav, count)
                count += len(wav)
        receiver.reception.check(concealed)
        left = max(samples - count, 0)
        yield filler.faded(self._as_long_as_original(chunks.finish(), left), count)

    def encode_stream(
        self, audio: Iterable[np.ndarray], speaker: str | None = None, seconds: float = 1.0
    ) -> Iterator[bytes]:
        """Compresses (n,) float32 pieces at 16 kHz while they arrive; how they are cut changes no byte.
        `seconds` is the length of a block, see `BlockEncoder`; the latency is one block plus one second."""
        has_f0 = bool(self.resynthesizer.streams.num_f0_codes)
        blocks = BlockEncoder(self.resynthesizer, speaker, seconds)
        writer = bitstream.FileWriter(
            self.model, self.identity, has_f0, self._speaker_field(speaker)
        )
        for units, f0_codes in blocks.encode(audio):
            yield writer.push(units, f0_codes)
        yield writer.finish(blocks.num_samples)

    def encode_blocks(
        self, wav: np.ndarray | str | Path, speaker: str | None = None, seconds: float = 1.0
    ) -> bytes:
        """The bytes of `encode_stream` for a whole recording; an array must be at 16 kHz."""
        return b"".join(self.encode_stream([self.resynthesizer.waveform(wav)], speaker, seconds))

    def decode_stream(
        self,
        pieces: Iterable[bytes],
        speaker: Speaker | None = None,
        chunk_units: int | None = None,
        **tokens: str,
    ) -> Iterator[np.ndarray]:
        """Decompresses speech while its bytes arrive; yields (n,) float32 pieces of what `decode` gives.
        `chunk_units` (None: a second) are decoded at once; the delay is a chunk, the generator's context and
        12 bytes. The rest is as for `decode`, but a checksum that does not fit is known only at the end."""
        reader, chunks, count = bitstream.FileReader(self.model, self.identity), None, 0
        for data in itertools.chain(pieces, [None]):
            reader.feed(data or b"", complete=data is None)
            if reader.coder is None:
                continue
            if chunks is None:
                voice = self._voice(reader.speaker, speaker)
                chunks = ChunkDecoder(self.resynthesizer.decoder, voice, chunk_units, tokens)
            wav = chunks.push(*reader.take())
            count += len(wav)
            yield wav
        left = max(reader.coder.num_samples - count, 0)
        yield self._as_long_as_original(chunks.finish(), left)

    def _speak(
        self,
        code: bitstream.SpeechCode,
        speaker: Speaker | None,
        pitch: str | None,
        rate: float,
        tokens: Mapping[str, str],
    ) -> np.ndarray:
        voice = self._voice(code.speaker, speaker)
        units, f0_codes = self._controlled(code, voice, pitch, rate)
        # In pieces of half a minute, so that memory does not grow with the length of the speech.
        chunk_units = units_in(self.resynthesizer.streams, OFFLINE_SECONDS)
        chunks = ChunkDecoder(self.resynthesizer.decoder, voice, chunk_units, tokens)
        pieces = chunks.pieces(units, () if f0_codes is None else f0_codes)
        wav = np.concatenate([np.zeros(0, np.float32), *pieces])
        return self._as_long_as_original(wav, code.num_samples, rate)

    def _as_long_as_original(
        self, wav: np.ndarray, num_samples: int, rate: float = 1.0
    ) -> np.ndarray:
        """Cuts or pads speech with silence to the length of the original divided by `rate`. A content encoder
        leaves up to a frame of the end without a unit; a difference of more than 1024 samples or two units
        has another reason, and the speech is then returned as it is."""
        wanted, hop = round(num_samples / rate), self.model.settings.unit_hop
        if abs(wanted - len(wav)) * min(rate, 1.0) > max(SAMPLES_MORE, 2 * hop):
            return wav
        return fit_length(wav, wanted)

    @property
    def _packet_format(self) -> PacketFormat:
        speakers = len(self.resynthesizer.streams.speakers)
        return PacketFormat(self.model, self.identity, speakers)

    def _packet_writer(self, speaker: str | np.ndarray | None, seconds: float) -> PacketWriter:
        return PacketWriter(self._packet_format, seconds, self._speaker_field(speaker))

    def _num_samples(self, filler: GapFiller, last: Packet) -> int:
        """The number of samples up to the end of a packet that a filler has taken."""
        end = filler.num_units * self.model.settings.unit_hop
        if last.num_samples is None:
            return end
        return end - len(last.units) * self.model.settings.unit_hop + last.num_samples

    def _speaker_field(self, speaker: str | np.ndarray | None) -> int | np.ndarray | None:
        if isinstance(speaker, str):
            return self.resynthesizer.streams.speaker_index(speaker)
        return speaker

    def _voice(self, stored: int | np.ndarray | None, wanted: Speaker | None) -> Speaker | None:
        streams = self.resynthesizer.streams
        voice = stored if wanted is None else wanted
        if isinstance(voice, str) and voice.isdigit() and voice not in streams.speakers:
            voice = int(voice)
        if voice is None and len(streams.speakers) > 1:
            raise ValueError(
                f"the file names no speaker: give one with --target, of {speaker_names(streams)}"
            )
        return voice if streams.has_speaker else None

    def _controlled(
        self, code: bitstream.SpeechCode, speaker: Speaker | None, pitch: str | None, rate: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        streams, codes = self.resynthesizer.streams, code.f0_codes
        if bool(streams.num_f0_codes) != (codes is not None):
            found, expected = ("without", "one") if codes is None else ("with", "none")
            raise CodecError(f"the file is {found} an F0 stream, and the bundle expects {expected}")
        if pitch is not None:
            if codes is None:
                raise ValueError("--pitch needs a bundle with F0 codes, and this one has none")
            pitches = self.resynthesizer.pitch
            entry = pitches.voice_entry(speaker)
            codes = change_pitch(codes, pitch, pitches.representation, entry)
        return change_rate(code.units, codes, rate, streams.unit_hop, streams.f0_code_hop)


def _concealed(conceal: str | None) -> bool:
    if conceal not in (None, "fade", "hold"):
        raise ValueError(f"found conceal={conceal!r}, expected fade, hold or None")
    return conceal is not None
