"""Packets: each decodes on its own, and whatever happens to some of them leaves the others as they were."""

import numpy as np
import pytest
from codec_models import network_model, released, tables_model, with_f0
from test_bitstream import at_other_hops, mutate

from fairseq_resynth.codec.format import packets as packets_format
from fairseq_resynth.codec.format.packets import (
    OVERHEAD_BYTES,
    Packet,
    PacketFormat,
    PacketWriter,
    frame_packets,
    read_packet,
    unframe_packets,
    write_packet,
)
from fairseq_resynth.codec.format.payload import PayloadCoder, encode_steps
from fairseq_resynth.codec.format.range_coder import ByteEncoder, CodecError
from fairseq_resynth.codec.reception import GapFiller, Receiver, ranges
from fairseq_resynth.data.streams import Utterance

IDENTITY = bytes(range(16))


def packet_format(model=None, num_speakers=5) -> PacketFormat:
    return PacketFormat(model or tables_model(), IDENTITY, num_speakers)


def packed(row: Utterance, seconds: float, form=None, speaker=3, step=None) -> list[bytes]:
    """The packets of an utterance, whose streams arrive in pieces of `step` units."""
    writer, packets = PacketWriter(form or packet_format(), seconds, speaker), []
    codes = () if row.f0_codes is None else row.f0_codes
    step = step or len(row.units) + 1
    for start in range(0, len(row.units), step):
        stop = start + step
        packets += writer.push(row.units[start:stop], codes[-(-start // 4) : -(-stop // 4)])
    return [*packets, writer.finish(row.num_samples or None)]


def receive(packets, window=None, form=None) -> tuple[Receiver, list]:
    form = form or packet_format()
    receiver = Receiver(lambda data: read_packet(form, data), window)
    return receiver, [pair for data in packets for pair in receiver.push(data)] + receiver.finish()


def speech(index=60, repeat=1) -> Utterance:
    """Speech in whole F0 codes, several times over."""
    row = with_f0(released("vctk")[index])
    codes = len(row.units) // 4
    return Utterance(np.tile(row.units[: 4 * codes], repeat), np.tile(row.f0_codes[:codes], repeat))


@pytest.mark.parametrize("seconds", [0.08, 0.5, 1.0, 100.0])
@pytest.mark.parametrize("model", [tables_model, network_model])
def test_each_packet_decodes_on_its_own_and_together_they_are_the_streams(seconds, model):
    form, row = packet_format(model()), with_f0(released("vctk")[60])
    packets = packed(row, seconds, form)
    assert len(packets) == int(len(row.units) // (round(seconds * 12.5) * 4)) + 1
    found = [read_packet(form, data) for data in reversed(packets)][::-1]
    assert np.concatenate([one.units for one in found]).tolist() == row.units.tolist()
    assert np.concatenate([one.f0_codes for one in found]).tolist() == row.f0_codes.tolist()
    assert {len(one.units) for one in found[:-1]} <= {found[0].full_units}
    assert {one.speaker for one in found} == {3}
    assert [one.number for one in found] == list(range(len(packets)))
    assert [one.num_samples is None for one in found] == [True] * (len(found) - 1) + [False]
    sent = sum(one.full_units for one in found[:-1])
    assert sent * 320 + found[-1].num_samples == len(row.units) * 320
    assert packed(row, seconds, form, step=7) == packets  # however the streams arrive


def test_number_and_checksum_take_three_bytes(monkeypatch):
    coded = []
    finish = ByteEncoder.finish
    monkeypatch.setattr(ByteEncoder, "finish", lambda self: coded.append(finish(self)) or coded[-1])
    packets = packed(speech(), 1.0)
    assert [len(data) for data in packets] == [len(data) + OVERHEAD_BYTES for data in coded]
    assert OVERHEAD_BYTES == 3


def test_the_first_unit_of_a_later_packet_is_as_likely_as_any():
    """The model takes the beginning of a file for silence, and packets begin anywhere."""
    bits = []
    for midway in (False, True):
        coder = PayloadCoder(tables_model(0), ByteEncoder(), False, midway)
        encode_steps(coder.steps(2), [50, 51], [])
        bits.append(coder.bits_by_unit[0])
    assert bits[1] == pytest.approx(np.log2(101), abs=1e-3) and bits[0] > bits[1] + 3
    form, packets = packet_format(tables_model(0)), [0, 256]
    data = [
        write_packet(form, Packet(n % 256, np.full(4, 50), np.zeros(0, int), 4)) for n in packets
    ]
    assert data[0] == data[1]  # the number that is sent decides


@pytest.mark.parametrize("hops", [(480, 320), (200, 1280)])
def test_f0_codes_of_any_ratio_stay_with_their_units(hops):
    model, rows = at_other_hops(*hops)
    form, period = packet_format(model), model.settings.units_per_period
    packets = packed_at(form, rows[0])
    for number, data in enumerate(packets):
        packet = read_packet(form, data)
        first = number * packet.full_units
        assert packet.full_units % period == 0 or number == len(packets) - 1
        assert packet.units.tolist() == rows[0].units[first : first + packet.full_units].tolist()
        start = first * hops[0] // hops[1]
        stop = start + len(packet.f0_codes)
        assert packet.f0_codes.tolist() == rows[0].f0_codes[start:stop].tolist()
    assert stop == len(rows[0].f0_codes) and len(packets) > 2


def packed_at(form: PacketFormat, row: Utterance) -> list[bytes]:
    writer = PacketWriter(form, 0.5)
    return [*writer.push(row.units, row.f0_codes), writer.finish()]


def test_a_run_across_a_boundary_and_units_that_the_model_lacks_come_back():
    units = np.r_[np.full(130, 7), 5000, np.full(20, 5000), 1]
    form = packet_format(tables_model(0), 0)
    found = [read_packet(form, data) for data in packed(Utterance(units), 0.4, form, None)]
    assert np.concatenate([one.units for one in found]).tolist() == units.tolist()
    assert {one.speaker for one in found} == {None} and len(found) == 8


@pytest.mark.parametrize("num_units", [0, 4, 96, 100])
def test_streams_of_no_length_and_of_whole_packets_end_with_a_packet(num_units):
    row = Utterance(speech().units[:num_units], speech().f0_codes[: num_units // 4])
    packets = packed(row, 1.0)
    receiver, found = receive(packets)
    assert receiver.reception.ended and len(packets) == num_units // 48 + 1
    assert sum(len(packet.units) for _, packet in found) == num_units


def test_packets_that_cannot_be_made_are_one_sentence():
    with pytest.raises(ValueError, match="found packets of 0 s, expected up to 332.72 s"):
        PacketWriter(packet_format(), 0)
    with pytest.raises(ValueError, match="found packets of 400 s"):
        PacketWriter(packet_format(), 400)
    with pytest.raises(ValueError, match="has a speaker vector: leave it out"):
        PacketWriter(packet_format(), 1, np.zeros(4))
    with pytest.raises(ValueError, match="found 2 F0 codes for the last 100 units"):
        packed(Utterance(speech().units[:100], np.zeros(2, np.int64)), 1.0)
    with pytest.raises(ValueError, match="expected integers from 0"):
        packed(Utterance(np.array([-1, 2])), 1.0, packet_format(tables_model(0)))


def test_lost_doubled_and_reordered_packets_are_named_and_the_rest_is_in_order():
    row = speech(repeat=12)
    packets = packed(row, 0.16)
    assert len(packets) > 260  # more than the numbers that are sent
    rng = np.random.default_rng(1)
    lost = {3, 4, 70, 256, 259}
    places = [(n + 3 * rng.random(), n) for n in range(len(packets)) if n not in lost]
    places += [(n + 5.5, n) for n in (8, 200)]
    arriving = [packets[number] for _, number in sorted(places)]
    receiver, found = receive(arriving)
    reception = receiver.reception
    assert reception.missing == sorted(lost) and sorted(reception.doubled) == [8, 200]
    assert (reception.damaged, reception.late, reception.foreign) == ([], [], [])
    number = -1
    for gap, packet in found:
        number += gap + 1
        first = 8 * number
        assert packet.units.tolist() == row.units[first : first + 8].tolist()
    with pytest.raises(CodecError, match=r"missing: 3-4, 70, 256, 259; doubled: 8, 200: --conceal"):
        reception.check(conceal=False)
    reception.check(conceal=True)
    streamed, out = receive(arriving, window=4)  # which is more than any packet was overtaken by
    assert streamed.reception == reception
    assert [(gap, one.number) for gap, one in out] == [(gap, one.number) for gap, one in found]


def test_a_window_bounds_the_delay():
    packets = packed(speech(repeat=3), 0.16)
    form = packet_format()
    receiver = Receiver(lambda data: read_packet(form, data), 2)
    counts = [len(receiver.push(packets[number])) for number in (0, 2, 3, 4, 1, 5)]
    assert counts == [1, 0, 0, 3, 0, 1]  # 1 is given up when 4, the third after it, arrives
    assert receiver.reception.missing == receiver.reception.late == [1]
    joined = Receiver(lambda data: read_packet(form, data), 2)
    out = [joined.push(packets[number]) for number in (7, 6, 8, 9)]
    assert joined.reception.missing == [0, 1, 2, 3, 4, 5] and not out[0] and not out[1]
    assert [(gap, one.number) for gap, one in out[2]] == [(1, 6), (0, 7), (0, 8)]
    assert [(gap, one.number) for gap, one in out[3]] == [(0, 9)]
    with pytest.raises(ValueError, match="window of 128 packets, expected 0 to 127"):
        Receiver(lambda data: read_packet(form, data), 128)


def test_packets_of_another_stream_are_told_apart():
    packets, others = packed(speech(), 0.5), packed(speech(61), 0.5)
    receiver, found = receive([*packets, *others])
    assert receiver.reception.foreign == list(range(len(packets) + 1, len(packets + others) + 1))
    assert receiver.reception.speech == len(packets) and not receiver.reception.missing
    with pytest.raises(CodecError, match="foreign: "):
        receiver.reception.check(conceal=False)


def test_packets_of_another_bundle_are_refused():
    other = PacketFormat(tables_model(), bytes(16), 5)
    receiver, found = receive(packed(speech(), 0.5, other))
    assert not found
    with pytest.raises(CodecError, match="none of the 11 packets is whole and of this bundle"):
        receiver.reception.check(conceal=True)


def damage(packets: list[bytes], rng: np.random.Generator) -> tuple[list[bytes], set[int]]:
    """Packets of which some are lost, damaged, doubled or moved; and the numbers of those that are whole."""
    arriving, whole = [], set()
    for number, data in enumerate(packets):
        kind = rng.integers(6)
        if kind == 0:
            continue
        if kind < 3:
            data = mutate(data, rng)
        if data == packets[number]:
            whole.add(number)
        arriving.append((number + 4 * rng.random(), data))
        if kind == 5:
            arriving.append((number + 4 * rng.random(), data))
    return [data for _, data in sorted(arriving, key=lambda pair: pair[0])], whole


def test_zeros_added_or_cut_off_at_the_end_are_damage():
    """With a plain CRC-16, zeros after it leave it valid."""
    rng, form = np.random.default_rng(0), packet_format()
    for _ in range(1000):
        content = rng.bytes(10)
        whole = content + form.seal(content)
        for data in (whole + b"\0", whole + b"\0\0", whole[:-1], whole[:-2]):
            assert form.seal(data[:-2]) != data[-2:]


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_damage_leaves_whole_packets_as_they_were(count):
    """Every whole packet comes out with its own units; what does not come out is said to be missing."""
    rng, row = np.random.default_rng(count), speech(repeat=2)
    packets, form = packed(row, 0.32), packet_format()
    originals = [read_packet(form, data) for data in packets]
    tried = undetected = 0
    while tried < count:
        arriving, whole = damage(packets, rng)
        tried += len(packets)
        receiver, found = receive(arriving, rng.choice([None, 4]), form)
        # A receiver that has a window may join later: what it missed before is no gap.
        number, spoken = found[0][1].number - found[0][0] - 1, set()
        for gap, packet in found:
            number += gap + 1
            spoken.add(number)
            same = packet.units.tolist() == originals[number].units.tolist()
            undetected += not same
            assert same or number not in whole
        said = receiver.reception
        assert whole <= spoken | set(said.late) | {n for n in whole if n >= number}
        assert not spoken & set(said.missing)
        assert set(range(number + 1)) == spoken | set(said.missing)
        assert said.speech == len(spoken) and (said.ended or len(packets) - 1 not in whole)
    assert undetected <= count / 5000  # 2**-16 of the damaged ones are expected


def test_frames_hold_any_bytes_and_find_their_place_again_after_damage():
    rng = np.random.default_rng(3)
    packets = [rng.bytes(size) for size in (1, 2, 253, 254, 255, 508, 509, 600)]
    packets += [bytes(1), bytes(300), b"\0a\0", b"\xff" * 254 + b"\0", *packed(speech(), 1.0)]
    data = b"".join(frame_packets(packets))
    assert (
        data[:1] == b"\0"
        and len(data) <= sum(len(one) + 2 + len(one) // 254 for one in packets) + 1
    )
    for size in (1, 5, len(data)):
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert list(unframe_packets(pieces)) == packets
    small = [rng.bytes(20) for _ in range(30)]
    framed = b"".join(frame_packets(small))
    for _ in range(300):
        changed = bytearray(framed)
        place = rng.integers(len(changed))
        changed[place : place + rng.integers(0, 3)] = rng.bytes(rng.integers(0, 3))
        assert len(set(small) - set(unframe_packets([bytes(changed)]))) <= 3


def test_frames_without_end_are_forgotten(monkeypatch):
    monkeypatch.setattr(packets_format, "LONGEST_FRAME", 100)
    found = list(unframe_packets([b"\1" * 40 for _ in range(100)]))
    assert len(found) == 1 and len(found[0]) <= 100


def test_gaps_are_bridged_in_time_and_fade():
    row, form = speech(repeat=2), packet_format()
    packets = [read_packet(form, data) for data in packed(row, 0.32)]
    filler = GapFiller(form.model.settings, fade=True)
    filler.streams(0, packets[0])
    units, f0_codes = filler.streams(2, packets[3])
    assert units.tolist() == [row.units[15]] * 16 + [row.units[48]] * 16 + row.units[48:64].tolist()
    assert f0_codes.tolist() == [row.f0_codes[3]] * 4 + [row.f0_codes[12]] * 4 + (
        row.f0_codes[12:16].tolist()
    )
    wav = np.concatenate(
        [filler.faded(np.ones(n, np.float32), s) for s, n in ((0, 7000), (7000, 13480))]
    )
    first, end = 16 * 320, 48 * 320
    assert (wav[:first] == 1).all() and (wav[end + 80 :] == 1).all()
    assert np.all(np.diff(wav[first : first + 961]) < 0) and wav[first + 480] == pytest.approx(0.5)
    assert not wav[first + 960 : end].any() and wav[end + 40] == pytest.approx(0.5)
    held = GapFiller(form.model.settings, fade=False)
    held.streams(0, packets[0])
    held.streams(2, packets[3])
    assert (held.faded(np.ones(20480)) == 1).all()
    start = GapFiller(form.model.settings, fade=True)
    units, _ = start.streams(1, packets[1])
    assert units.tolist() == [row.units[16]] * 16 + row.units[16:32].tolist()
    assert not start.faded(np.ones(16 * 320)).any()


def test_ranges_are_short():
    assert ranges([5, 3, 4, 9, 11, 10]) == "3-5, 9-11" and ranges([]) == ""


def test_a_packet_of_few_bytes_cannot_claim_hours_of_gap():
    form = packet_format()
    one = read_packet(form, packed(speech(repeat=30), 20.0, form)[1])
    filler = GapFiller(form.model.settings, fade=True)
    filler.streams(29, one)
    with pytest.raises(
        CodecError, match="100 packets .* are missing, 2000 s of speech: up to 600 s"
    ):
        filler.streams(100, one)
