"""Bits: a set of indexes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producer.bits import Bits

NUMBERS = st.lists(st.integers(0, 5000))


@given(NUMBERS, NUMBERS)
def test_bits_are_a_set_that_goes_up(numbers: list[int], others: list[int]) -> None:
    bits = Bits(numbers)
    assert list(bits) == sorted(set(numbers))
    assert len(bits) == len(set(numbers))
    assert [other in bits for other in others] == [other in set(numbers) for other in others]
    assert bits.within(100, 200) == [number for number in sorted(set(numbers)) if 100 <= number < 200]


def test_ten_million_bits_take_little() -> None:
    bits = Bits([9_999_999])
    assert len(bits._bytes) == 1_250_000
