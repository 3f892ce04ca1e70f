"""Integer logarithms, powers and gates against floating point, and their fixed values."""

import hashlib

import numpy as np

from fairseq_resynth.codec.entropy import integer_math


def test_powers_and_logarithms_are_close_to_floating_point():
    exponents = np.linspace(-20, 0, 2001)
    powers = [integer_math.power_of_two(int(x * 65536)) / 2**30 for x in exponents]
    expected = [2.0 ** (int(x * 65536) / 65536) for x in exponents]
    np.testing.assert_allclose(powers, expected, rtol=1e-6, atol=2e-9)
    values = np.unique(np.exp(np.linspace(0, 33, 2001)).astype(np.int64))
    logarithms = [integer_math.logarithm(int(value)) / 65536 for value in values]
    np.testing.assert_allclose(logarithms, np.log2(values), atol=4e-5)


def test_tables_are_the_same_everywhere():
    """These digests are part of the format: another value would make older files unreadable."""
    tables = (
        integer_math.POWERS,
        integer_math.LOGARITHMS,
        integer_math.SIGMOID,
        integer_math.TANGENT,
    )
    digests = [hashlib.sha256(table.astype("<i8").tobytes()).hexdigest()[:12] for table in tables]
    assert digests == ["ab136c6a382b", "30ce72d17f7d", "3dcad8410855", "4560641972f5"]


def test_gates_are_close_to_floating_point():
    x = np.arange(-8192, 8192) / 1024
    np.testing.assert_allclose(integer_math.SIGMOID / 4096, 1 / (1 + np.exp(-x)), atol=2e-4)
    np.testing.assert_allclose(integer_math.TANGENT / 4096, np.tanh(x), atol=3e-4)
    assert integer_math.gate_index(-(1 << 30)) == 0
    assert integer_math.gate_index(1 << 30) == len(integer_math.SIGMOID) - 1


def test_odds_and_probabilities_are_inverse_and_bounded():
    for probability in (20000, 1 << 20, 1 << 23, (1 << 24) - 20000):
        again = integer_math.odds_to_probability(integer_math.log_odds(probability))
        assert abs(again - probability) <= 1 + probability // 10000
    assert integer_math.odds_to_probability(-(1 << 30)) == 1 << 14
    assert integer_math.odds_to_probability(1 << 30) == (1 << 24) - (1 << 14)
