"""Range coding: exact intervals, shortest bytes, streaming, and refusal of any other bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_resynth.codec.format.range_coder import (
    ByteDecoder,
    ByteEncoder,
    CodecError,
    binary_frequencies,
    uniform_frequencies,
)

TOTAL = 1 << 24


def draw_symbols(seed: int, count: int, sharpness: float) -> tuple[list[np.ndarray], list[int]]:
    rng = np.random.default_rng(seed)
    tables, symbols = [], []
    for _ in range(count):
        size = int(rng.integers(1, 40))
        shares = rng.dirichlet(np.full(size, sharpness))
        table = np.floor(shares * (TOTAL - size)).astype(np.int64)
        table[0] += TOTAL - size - table.sum()
        tables.append(table)
        symbols.append(int(rng.choice(size, p=(table + 1) / TOTAL)))
    return tables, symbols


def encode(tables: list[np.ndarray], symbols: list[int]) -> bytes:
    encoder = ByteEncoder()
    for table, symbol in zip(tables, symbols, strict=True):
        encoder.code(table, symbol)
    return encoder.finish()


def test_every_interval_is_exactly_the_integer_frequency():
    rng = np.random.default_rng(0)
    for size in (2, 3, 101, 2001):
        table = rng.integers(0, 1 << 12, size)
        table[0] += TOTAL - size - table.sum()
        table[0] += table[1]
        table[1] = 0  # the coder still gives it one part
        bounds = np.concatenate([[0], np.cumsum(table + 1)]).tolist()
        assert bounds[-1] == TOTAL
        scale = (2**64 - 1) >> 24
        for symbol in {0, 1, 2, size // 2, size - 1} & set(range(size)):
            encoder = ByteEncoder()
            encoder.code(table, symbol)
            low, width = encoder.state
            assert encoder.words == 0
            assert low == scale * bounds[symbol]
            assert width == scale * (bounds[symbol + 1] - bounds[symbol])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 120), st.sampled_from([0.01, 0.2, 3.0]))
def test_round_trip_costs_at_most_a_byte_more_than_the_entropy(seed, count, sharpness):
    tables, symbols = draw_symbols(seed, count, sharpness)
    data = encode(tables, symbols)
    bits = sum(24 - np.log2(t[s] + 1) for t, s in zip(tables, symbols, strict=True))
    assert 8 * len(data) < bits + 8 + 1e-3
    decoder = ByteDecoder()
    decoder.feed(data, complete=True)
    assert [decoder.code(table) for table in tables] == symbols
    decoder.finish()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 120), st.integers(1, 7))
def test_streaming_gives_the_same_bytes_and_symbols(seed, count, chunk):
    tables, symbols = draw_symbols(seed, count, 0.3)
    data = encode(tables, symbols)
    encoder, sent = ByteEncoder(), b""
    for table, symbol in zip(tables, symbols, strict=True):
        encoder.code(table, symbol)
        settled = encoder.settled()
        assert data.startswith(settled)
        sent = max(sent, settled, key=len)
    assert len(encoder.finish()) - len(sent) <= 40
    decoder, position, decoded = ByteDecoder(), 0, []
    for table in tables:
        while not decoder.ready():
            position += chunk
            decoder.feed(data[position - chunk : position], complete=position >= len(data))
        decoded.append(decoder.code(table))
    assert decoded == symbols


def test_bytes_of_no_encoder_are_refused():
    tables, symbols = draw_symbols(3, 60, 0.5)
    data = encode(tables, symbols)
    for changed in (data + b"\1", data[:-1], data[:-1] + bytes([data[-1] ^ 1]), data + b"\0"):
        decoder = ByteDecoder()
        decoder.feed(changed, complete=True)
        with pytest.raises(CodecError):
            found = [decoder.code(table) for table in tables]
            decoder.finish()
            assert found != symbols  # another valid stream: the file's checksum is there for it
            raise CodecError("checksum")


def test_decoding_past_the_end_is_refused_soon():
    decoder = ByteDecoder()
    decoder.feed(b"", complete=True)
    with pytest.raises(CodecError, match="truncated"):
        for _ in range(100):
            decoder.code(uniform_frequencies(256))


def test_frequencies_of_helpers_are_whole_and_sum_up():
    for size in (1, 2, 3, 256, 639):
        table = uniform_frequencies(size)
        assert table.sum() == TOTAL - size and (table == np.floor(table)).all()
        assert table.max() - table.min() <= 1
    for probability in (0, 1, 12345, TOTAL - 1, TOTAL):
        table = binary_frequencies(probability)
        assert table.sum() == TOTAL - 2 and table.min() >= 0
    assert binary_frequencies(12345)[1] + 1 == 12345
