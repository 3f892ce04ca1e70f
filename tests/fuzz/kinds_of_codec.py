"""Packets, tokens, and speech that is decoded from damaged bytes."""

from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from kinds import Kind, one
from kinds_of_models import write_bundle
from mutations import change_bytes, change_safetensors

from fairseq_resynth.codec import inspection
from fairseq_resynth.codec.entropy.fitting import TrainingOptions
from fairseq_resynth.codec.format.packets import PacketFormat, frame_packets, unframe_packets
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.codec.tokens import TokenModel, Tokens, fit_token_model, is_token_model
from fairseq_resynth.data.streams import Utterance

RNG = np.random.default_rng(0)
SPEECH = Utterance(RNG.integers(0, 10, 40), RNG.integers(0, 4, 5), "anna", 40 * 160)
_codec = lru_cache(maxsize=1)(lambda bundle: SpeechCodec.from_pretrained(bundle, decode_only=True))


def _coded(folder: Path) -> None:
    write_bundle(folder)
    codec = _codec(folder / "bundle")
    (folder / "a.rsyn").write_bytes(codec.pack(SPEECH))
    packets = codec.pack_packets(SPEECH, 0.08)
    (folder / "a.rsynp").write_bytes(b"".join(frame_packets(packets)))


def _decode(path: Path) -> None:
    codec, data = _codec(path.parent / "bundle"), path.read_bytes()
    inspection.header(data)
    inspection.inspect(codec.model, codec.identity, data)
    codec.decode(data, style="sad")


def _decode_member(path: Path) -> None:
    if len(data := path.read_bytes()) > 8:
        _codec(path.parent / "bundle").decode(data[:-3], checksum=False, style="sad")


def _decode_stream(path: Path) -> None:
    data = path.read_bytes()
    pieces = [data[start : start + 5] for start in range(0, len(data), 5)]
    list(_codec(path.parent / "bundle").decode_stream(pieces, style="sad"))


def _decode_packets(path: Path) -> None:
    codec = _codec(path.parent / "bundle")
    packets = list(unframe_packets([path.read_bytes()]))
    wav, reception = codec.decode_packets(packets, conceal="fade", style="sad")
    assert np.isfinite(wav).all() and reception.text() and reception.to_dict()


def _decode_packet_stream(path: Path) -> None:
    codec = _codec(path.parent / "bundle")
    pieces, data = [], path.read_bytes()
    packets = unframe_packets(data[start : start + 5] for start in range(0, len(data), 5))
    for piece in codec.decode_packet_stream(
        packets, codec.receiver(2), conceal="hold", style="sad"
    ):
        pieces.append(piece)
    assert np.isfinite(np.concatenate(pieces)).all()


def change_packets(data: bytes, rng: Random) -> bytes:
    """Packets are lost, doubled, exchanged or cut, or have other content with a checksum that fits it."""
    packets = list(unframe_packets([data]))
    for _ in range(rng.randint(1, 3)):
        place, kind = rng.randrange(len(packets)), rng.randrange(5)
        if kind == 0 and len(packets) > 1:
            del packets[place]
        elif kind == 1:
            packets.insert(rng.randrange(len(packets)), packets[place])
        elif kind == 2:
            rng.shuffle(packets)
        else:
            body = change_bytes(packets[place][:-2], rng)
            packets[place] = body + _SEALS[-1].seal(body)
    return b"".join(frame_packets(packets))


_SEALS: list[PacketFormat] = []


def _coded_packets(folder: Path) -> None:
    _coded(folder)
    _SEALS.append(_codec(folder / "bundle")._packet_format)


def _tokens_of(frames: int) -> Tokens:
    return Tokens("a", np.random.default_rng(frames).integers(0, 6, (frames, 3)))


@lru_cache
def _tokens() -> TokenModel:
    return fit_token_model(
        [_tokens_of(20 + row) for row in range(6)], [6, 6, 6], TrainingOptions(hidden_size=0)
    )


def _use_tokens(path: Path) -> None:
    is_token_model(path)
    model = TokenModel.load(path)
    if len(model.vocabularies) == 3:
        model.decode(model.encode(Tokens("a", np.zeros((5, 3), np.int64)))[0])


def _decode_tokens(path: Path) -> None:
    _tokens().decode(path.read_bytes())


CODED = {
    "decoded .rsyn": Kind(
        _coded, "a.rsyn", [_decode, _decode_member, _decode_stream], [change_bytes], 20
    ),
    "packets": Kind(
        _coded_packets,
        "a.rsynp",
        [_decode_packets, _decode_packet_stream],
        [change_bytes, change_packets, change_packets],
        20,
    ),
    "tokens": one(
        "a.bin",
        lambda: _tokens().encode(_tokens_of(20))[0],
        [_decode_tokens],
        change_bytes,
    ),
    "token model": Kind(
        lambda folder: _tokens().save(folder / "tokens.safetensors"),
        "tokens.safetensors",
        [_use_tokens],
        [change_bytes, change_safetensors],
        20,
    ),
}
