"""How many bits a second the streams of an utterance take."""

from typing import Any

import numpy as np

from fairseq_resynth.codec.inspection import inspect
from fairseq_resynth.codec.speech_codec import SpeechCodec
from fairseq_resynth.data.streams import Streams
from fairseq_resynth.unit_decoder import EncodedSpeech

PCM_BITS = 16 * 16000  # a second of the waveform at 16 bits


def stream_rates(streams: Streams) -> dict[str, float]:
    """Returns the bits a second of each stream at a fixed length a code: rate * log2(codes).

    Continuous F0 has no codes and is left out.
    """
    rates = {"units": streams.sample_rate / streams.unit_hop * np.log2(streams.num_units)}
    if streams.num_f0_codes:
        rates["f0"] = streams.sample_rate / streams.f0_code_hop * np.log2(streams.num_f0_codes)
    return {name: round(float(rate), 1) for name, rate in rates.items()}


def describe_rates(
    speech: EncodedSpeech, streams: Streams, codec: SpeechCodec | None
) -> dict[str, Any]:
    """Counts the bits of an utterance.

    Args:
        speech: its streams.
        streams: of the model.
        codec: None: the bundle has no context model, and only the fixed length is known.

    Returns:
        `fixed`, `coded` (bits a second by stream, `coded` None without a codec), `bytes` of the coded file
        (None), `pcm`, and whether there is `continuous` pitch, which none of these count.
    """
    rates = {"fixed": stream_rates(streams), "coded": None, "bytes": None, "pcm": PCM_BITS}
    rates["continuous"] = bool(streams.f0_channels)
    if codec is not None:
        data = codec.pack(speech)
        summary = inspect(codec.model, codec.identity, data).summary
        spent = {name: rate for name, rate in summary["bps"].items() if rate}
        rates.update(coded={**spent, "total": summary["total_bps"]}, bytes=len(data))
    return rates
