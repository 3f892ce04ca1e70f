"""The .rsyn file: bit-exact round trips of any streams, and refusal of everything damaged."""

import hashlib
import resource
import time
from dataclasses import replace

import numpy as np
import pytest
from codec_models import NO_NETWORK, network_model, released, tables_model, with_f0
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fairseq_resynth.codec.entropy.entropy_model import Settings
from fairseq_resynth.codec.entropy.fitting import fit_entropy_model
from fairseq_resynth.codec.format.bitstream import (
    FileReader,
    FileWriter,
    SpeechCode,
    pack_speaker,
    read_bytes,
    unpack_speaker,
    write_bytes,
)
from fairseq_resynth.codec.format.payload import LARGEST
from fairseq_resynth.codec.format.range_coder import CodecError

IDENTITY = bytes(range(16))
KEEP = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])

runs = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 60)), max_size=30)
known_units = runs.map(lambda pairs: [unit for unit, length in pairs for _ in range(length)])
any_units = st.lists(st.integers(0, 99) | st.integers(0, LARGEST), max_size=60)
any_codes = st.lists(st.integers(0, 19) | st.integers(0, LARGEST), max_size=40)


def round_trip(model, code: SpeechCode) -> SpeechCode:
    return read_bytes(model, IDENTITY, write_bytes(model, IDENTITY, code))


def assert_same(found: SpeechCode, code: SpeechCode, hop: int = 320) -> None:
    assert found.units.tolist() == list(code.units)
    assert (found.f0_codes is None) == (code.f0_codes is None)
    if code.f0_codes is not None:
        assert found.f0_codes.tolist() == list(code.f0_codes)
    expected = len(code.units) * hop if code.num_samples is None else code.num_samples
    assert found.num_samples == expected
    assert found.speaker == code.speaker


@KEEP
@given(
    known_units | any_units,
    st.none() | any_codes,
    st.none() | st.integers(0, (1 << 28) - 1),
    st.none() | st.integers(0, 1 << 36),
)
@example([], None, None, None)
@example([], [], None, 0)
@example([7], None, None, 1)
@example([], [3, 4], 0, None)  # F0 codes without units
@example([5] * 9, [], 0, None)  # far fewer F0 codes than units
def test_any_streams_come_back(units, f0_codes, speaker, num_samples):
    code = SpeechCode(
        np.array(units, np.int64),
        None if f0_codes is None else np.array(f0_codes, np.int64),
        speaker,
        num_samples,
    )
    assert_same(round_trip(tables_model(), code), code)


@settings(max_examples=20, deadline=None)
@given(known_units, st.booleans())
def test_any_streams_come_back_with_a_network_and_without_f0_in_the_model(units, pitch):
    codes = np.arange(len(units) // 4) % 20 if pitch else None
    code = SpeechCode(np.array(units, np.int64), codes, 1, None)
    assert_same(round_trip(network_model(), code), code)
    assert_same(round_trip(tables_model(0), code), code)


def at_other_hops(unit_hop, f0_code_hop):
    """A model of other hops, and utterances with as many random F0 codes as start within their units."""
    rows = []
    for seed, row in enumerate(released("vctk")[:12]):
        count = -(-len(row.units) * unit_hop // f0_code_hop)
        codes = np.random.default_rng(seed).integers(20, size=count).cumsum() // 9 % 20
        rows.append(replace(row, f0_codes=codes))
    settings = Settings(100, unit_hop, 20, f0_code_hop)
    return fit_entropy_model(rows, settings, NO_NETWORK), rows


@pytest.mark.parametrize("hops", [(640, 320), (480, 320), (320, 480), (200, 1280)])
def test_f0_codes_of_any_ratio_come_back_and_stay_with_their_units(hops):
    model, rows = at_other_hops(*hops)
    for row in rows[:3]:
        for length in range(len(row.units) - 4, len(row.units) + 1):
            codes = row.f0_codes[: -(-length * hops[0] // hops[1])]
            code = SpeechCode(row.units[:length], codes)
            data = write_bytes(model, IDENTITY, code)
            assert_same(read_bytes(model, IDENTITY, data), code, hops[0])
        reader, units, f0_codes = FileReader(model, IDENTITY), 0, 0
        for byte in data:
            reader.feed(bytes([byte]))
            if reader.coder is not None:
                new = reader.take()
                units, f0_codes = units + len(new[0]), f0_codes + len(new[1])
                covered = units * hops[0] // hops[1]
                assert covered - hops[0] // hops[1] - 1 <= f0_codes <= covered + 1


def test_files_keep_their_bytes():
    """What was encoded before F0 codes could have any hop: 320 samples per unit and 1280 per code."""
    digest, model = hashlib.sha256(), replace(tables_model(), confusions={})  # format 1
    for seed, row in enumerate(released("vctk")[60:64]):
        row = with_f0(row, seed)
        for length in (len(row.units), len(row.units) - 1, len(row.units) - 2):
            for codes in (row.f0_codes, row.f0_codes[: -(-length // 4)], row.f0_codes[:5]):
                code = SpeechCode(row.units[:length], codes)
                digest.update(write_bytes(model, IDENTITY, code))
    assert digest.hexdigest()[:16] == "64e995c65c697c7e"


@pytest.mark.parametrize("seconds", [600, pytest.param(3600, marks=pytest.mark.slow)])
def test_long_speech_comes_back(seconds):
    rows = [with_f0(row, seed) for seed, row in enumerate(released("lj"))]
    units = np.concatenate([row.units for row in rows] * 5)[: seconds * 50]
    f0_codes = np.concatenate([row.f0_codes for row in rows] * 5)[: seconds * 50 // 4]
    code = SpeechCode(units, f0_codes, 2, seconds * 16000)
    start = time.process_time()
    data = write_bytes(tables_model(), IDENTITY, code)
    assert_same(read_bytes(tables_model(), IDENTITY, data), code)
    # 100 times faster than real time, both directions together
    assert time.process_time() - start < seconds / 100
    assert len(data) < seconds * 300 / 8


def test_header_and_checksum_take_6_bytes_and_the_rest_of_the_frame_2():
    sizes = []
    for row in released("vctk")[60:100]:
        writer = FileWriter(tables_model(), IDENTITY, has_f0=False)
        data = writer.push(row.units)
        content = writer.end_units()
        data += writer.finish(len(row.units) * 320 + 400)
        sizes.append(len(data) - len(content))
    assert max(sizes) <= 8
    assert len(write_bytes(tables_model(), IDENTITY, SpeechCode(np.zeros(0, np.int64)))) <= 9


@pytest.mark.parametrize("speaker", [None, 0, 127, 128, 200, (1 << 28) - 1])
def test_speaker_indices_come_back(speaker):
    kind, field = pack_speaker(speaker)
    assert unpack_speaker(kind, field + b"\7") == (speaker, len(field))
    assert len(field) == (0 if speaker is None else max(1, -(-speaker.bit_length() // 7)))


def test_speaker_vector_takes_a_byte_a_dimension_and_keeps_its_direction():
    vector = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    code = SpeechCode(np.array([1, 2, 2]), None, vector)
    found = round_trip(tables_model(), code).speaker
    assert found.dtype == np.float32 and np.abs(found - vector).max() < np.abs(vector).max() / 200
    assert len(pack_speaker(vector)[1]) == 256 + 4
    cosine = found @ vector / np.linalg.norm(found) / np.linalg.norm(vector)
    assert cosine > 0.9999
    again = round_trip(tables_model(), SpeechCode(np.array([1]), None, found)).speaker
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize(
    "speaker", [-1, np.array([1.0, np.nan]), np.zeros((2, 2)), np.zeros(0), np.full(4, 1e9)]
)
def test_impossible_speakers_are_refused(speaker):
    with pytest.raises(ValueError, match="speaker"):
        write_bytes(tables_model(), IDENTITY, SpeechCode(np.array([1]), None, speaker))


@pytest.mark.parametrize("units", [[-1], [LARGEST + 1]])
def test_impossible_units_are_refused(units):
    with pytest.raises(ValueError, match="unit: expected integers from 0"):
        write_bytes(tables_model(), IDENTITY, SpeechCode(np.array(units)))


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_streaming_writes_the_same_bytes_and_reads_with_bounded_delay(chunk):
    row = with_f0(released("lj")[5])
    whole = write_bytes(network_model(), IDENTITY, SpeechCode(row.units, row.f0_codes, 4, 99999))
    writer, parts = FileWriter(network_model(), IDENTITY, True, 4), []
    for start in range(0, len(row.units), chunk):
        stop = start + chunk
        codes = row.f0_codes[-(-start // 4) : -(-stop // 4)]
        parts.append(writer.push(row.units[start:stop], codes))
    assert len(b"".join(parts)) > len(whole) - 40
    assert b"".join(parts) + writer.finish(99999) == whole
    reader, units, delays = FileReader(network_model(), IDENTITY), [], []
    for start in range(0, len(whole), 4):
        reader.feed(whole[start : start + 4], complete=False)
        if reader.coder is not None:
            units += reader.take()[0].tolist()
        delays.append(start / len(whole) * len(row.units) - len(units))
    reader.feed(b"", complete=True)
    units += reader.take()[0].tolist()
    assert units == row.units.tolist() and reader.speaker == 4
    assert max(delays) < 100  # two seconds of units wait for the coder's 12 bytes


def test_another_models_file_is_refused_and_named():
    data = write_bytes(tables_model(), IDENTITY, SpeechCode(np.array([1, 2, 3])))
    with pytest.raises(CodecError, match=r"needs the model 0001…, this one is ff010203…"):
        read_bytes(tables_model(), b"\xff" + IDENTITY[1:], data)
    for byte in range(2, 16):  # names that begin alike differ in the checksum
        other = bytearray(IDENTITY)
        other[byte] ^= 1
        with pytest.raises(CodecError):
            read_bytes(tables_model(), bytes(other), data)
    with pytest.raises(CodecError):
        read_bytes(tables_model(0), IDENTITY, data)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    kind = rng.integers(6)
    if kind == 0:
        return bytes(changed[: rng.integers(len(data))])
    if kind == 1:
        for place in rng.integers(8 * len(data), size=rng.integers(1, 4)):
            changed[place // 8] ^= 1 << place % 8
    elif kind == 2:
        changed += rng.bytes(rng.integers(1, 9))
    elif kind == 3:
        place = rng.integers(len(data))
        changed[place : place + rng.integers(1, 6)] = rng.bytes(rng.integers(0, 6))
    elif kind == 4:
        return bytes(changed[:3]) + rng.bytes(rng.integers(0, 80))  # a right header, then noise
    else:
        return rng.bytes(rng.integers(0, 60))
    return bytes(changed)


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutations_are_refused_or_harmless(count):
    rng = np.random.default_rng(11)
    originals = []
    for index, row in enumerate(released("vctk")[60:70]):
        row = with_f0(row)
        code = SpeechCode(row.units[:30], row.f0_codes[:8] if index % 2 else None, index or None)
        originals.append((code, write_bytes(tables_model(), IDENTITY, code)))
    slowest, refused = 0.0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for trial in range(count):
        code, data = originals[trial % len(originals)]
        start = time.process_time()
        try:
            assert_same(read_bytes(tables_model(), IDENTITY, mutate(data, rng)), code)
        except CodecError:
            refused += 1
        slowest = max(slowest, time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kB
    assert refused > 0.99 * count
    assert slowest < 5 and grown < 200_000


def test_a_bomb_is_refused_in_bounded_memory(monkeypatch):
    """The longest silence that the fewest bytes can claim."""
    monkeypatch.setattr("fairseq_resynth.codec.format.payload.LIMIT", 20_000)
    writer = FileWriter(tables_model(), IDENTITY, has_f0=False)
    data = writer.push(np.full(20_000, 71)) + writer.finish()
    assert len(data) < 50
    assert len(read_bytes(tables_model(), IDENTITY, data).units) == 20_000
    monkeypatch.setattr("fairseq_resynth.codec.format.payload.LIMIT", 19_999)
    with pytest.raises(CodecError, match="more than 19999 units"):
        read_bytes(tables_model(), IDENTITY, data)
