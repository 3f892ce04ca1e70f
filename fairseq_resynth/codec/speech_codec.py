"""The codec: speech to a few hundred bytes, `encode(wav) -> bytes`, and back, `decode(bytes) -> wav`."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from fairseq_resynth.codec.entropy.entropy_model import EntropyModel
from fairseq_resynth.codec.format.bitstream import (
    FileReader,
    FileWriter,
    SpeechCode,
    read_bytes,
    write_bytes,
)
from fairseq_resynth.codec.format.errors import CodecError
from fairseq_resynth.codec.streaming import BlockEncoder, fit_length
from fairseq_resynth.constants import SAMPLE_RATE
from fairseq_resynth.conversion.prosody import change_pitch, change_rate
from fairseq_resynth.data.audio.files import load_any_audio, resample
from fairseq_resynth.data.streams import StreamSpec, Utterance
from fairseq_resynth.inference.bundle import ENTROPY_FILE
from fairseq_resynth.inference.chunks import OFFLINE_UNITS, ChunkDecoder
from fairseq_resynth.inference.hub import find_bundle
from fairseq_resynth.inference.voices import Speaker, speaker_names
from fairseq_resynth.resynthesizer import Resynthesizer


def _require_f0_codes(streams: StreamSpec) -> None:
    if streams.f0_channels:
        raise ValueError(
            f"the bundle's generator takes continuous F0 ({streams.f0_channels} channels at 200 Hz), which "
            "the codec cannot store: train one on F0 codes (`resynth quantize-f0`) or without pitch."
        )


class SpeechCodec:
    """A codec of speech, made of a bundle and its context model, fitted on units of the same encoder.

    `identity` is 16 bytes that name both: a file holds the first two, and its checksum depends on all. Raises
    ValueError if the bundle takes continuous F0, or other units or F0 codes than the model knows.
    """

    def __init__(self, resynthesizer: Resynthesizer, model: EntropyModel):
        streams, settings = resynthesizer.streams, model.settings
        _require_f0_codes(streams)
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
        path = folder / ENTROPY_FILE
        if not path.is_file():
            _require_f0_codes(Resynthesizer.from_pretrained(folder, decode_only=True).streams)
            raise FileNotFoundError(
                f"{path} does not exist. Fit the codec with `resynth fit-codec DATA --out {path}`."
            )
        system = Resynthesizer.from_pretrained(folder, content_checkpoint, device, decode_only)
        return cls(system, EntropyModel.load(path))

    def encode(
        self,
        wav: np.ndarray | str | Path,
        speaker: str | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> bytes:
        """Compresses speech; arguments and errors are those of `Resynthesizer.encode`.

        Without a speaker the file has none, and the decoder has to choose one.
        """
        return self.pack(self.resynthesizer.encode(wav, speaker, sample_rate))

    def pack(self, speech: Utterance) -> bytes:
        """Compresses the streams of an utterance, as `encode` does those of a recording."""
        code = SpeechCode(
            speech.units, speech.f0_codes, self._speaker_field(speech.speaker), speech.num_samples
        )
        return write_bytes(self.model, self.identity, code)

    def decode(
        self,
        data: bytes,
        speaker: Speaker | None = None,
        pitch: str | None = None,
        rate: float = 1.0,
        checksum: bool = True,
        style: str | None = None,
    ) -> np.ndarray:
        """Decompresses speech into (T,) float32 at 16 kHz, as long as the original divided by `rate`.

        Args:
            data: Bytes from `encode`.
            speaker: Another voice, as name, index or (D,) vector; None takes the file's.
            pitch: `shift=+3st`, `scale=1.2` or `flatten`; None leaves it as it is.
            rate: Rate of speaking, 0.25 to 4.
            checksum: False for a member of an archive.
            style: Name of the speaking style, for a model with several.

        Raises:
            CodecError: If the bytes are damaged or another bundle's.
            ValueError: If this bundle has no such voice or cannot change what is asked for.
        """
        code = read_bytes(self.model, self.identity, data, checksum)
        voice = self._voice(code.speaker, speaker)
        units, f0_codes = self._controlled(code, voice, pitch, rate)
        # In pieces of half a minute, so that memory does not grow with the length of the speech.
        chunks = ChunkDecoder(self.resynthesizer.decoder, voice, OFFLINE_UNITS, style)
        pieces = chunks.pieces(units, () if f0_codes is None else f0_codes)
        wav = np.concatenate([np.zeros(0, np.float32), *pieces])
        return fit_length(wav, code.num_samples, rate)

    def encode_stream(
        self, audio: Iterable[np.ndarray], speaker: str | None = None, seconds: float = 1.0
    ) -> Iterator[bytes]:
        """Compresses (n,) float32 pieces at 16 kHz while they arrive; how they are cut changes no byte.

        `seconds` is the length of a block, see `BlockEncoder`; the latency is one block plus one second.
        """
        field = self._speaker_field(speaker)
        blocks = BlockEncoder(self.resynthesizer, speaker, seconds)
        has_f0 = bool(self.resynthesizer.streams.num_f0_codes)
        writer = FileWriter(self.model, self.identity, has_f0, field)
        for piece in audio:
            for units, f0_codes in blocks.push(piece):
                yield writer.push(units, f0_codes)
        for units, f0_codes in blocks.finish():
            yield writer.push(units, f0_codes)
        yield writer.finish(blocks.num_samples)

    def encode_blocks(
        self, wav: np.ndarray | str | Path, speaker: str | None = None, seconds: float = 1.0
    ) -> bytes:
        """The bytes of `encode_stream` for a whole recording; an array must be at 16 kHz."""
        if isinstance(wav, str | Path):
            wav = resample(*load_any_audio(wav))
        return b"".join(self.encode_stream([wav], speaker, seconds))

    def decode_stream(
        self,
        pieces: Iterable[bytes],
        speaker: Speaker | None = None,
        chunk_units: int = 50,
        style: str | None = None,
    ) -> Iterator[np.ndarray]:
        """Decompresses speech while its bytes arrive; yields (n,) float32 pieces of what `decode` gives.

        `chunk_units` are decoded at once; the delay is a chunk, the generator's context and 12 bytes. The
        rest is as for `decode`, but that a checksum that does not fit is known only at the end.
        """
        reader, chunks, count = FileReader(self.model, self.identity), None, 0
        for data in itertools.chain(pieces, [None]):
            reader.feed(data or b"", complete=data is None)
            if reader.coder is None:
                continue
            if chunks is None:
                voice = self._voice(reader.speaker, speaker)
                chunks = ChunkDecoder(self.resynthesizer.decoder, voice, chunk_units, style)
            wav = chunks.push(*reader.take())
            count += len(wav)
            yield wav
        wav = chunks.finish()
        yield fit_length(wav, max(reader.coder.num_samples - count, 0), 1.0)

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
        self, code: SpeechCode, speaker: Speaker | None, pitch: str | None, rate: float
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
