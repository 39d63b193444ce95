"""A Bitmap is a set of integers with a packed form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diachunk.bitmap import Bitmap


@st.composite
def sets(draw: st.DrawFn) -> tuple[int, set[int]]:
    length = draw(st.integers(0, 200))
    return length, draw(st.sets(st.integers(0, length - 1))) if length else set()


@given(sets())
def test_it_behaves_as_a_set(pair: tuple[int, set[int]]) -> None:
    length, ones = pair
    bitmap = Bitmap(length, ones)
    assert list(bitmap) == sorted(ones)
    assert len(bitmap) == len(ones)
    assert [index in bitmap for index in range(-9, length + 9)] == [
        index in ones for index in range(-9, length + 9)
    ]


@given(sets())
def test_the_packed_form_goes_there_and_back(pair: tuple[int, set[int]]) -> None:
    length, ones = pair
    packed = Bitmap(length, ones).to_bytes()
    assert len(packed) == (length + 7) // 8
    assert int.from_bytes(packed, "little") == sum(1 << index for index in ones), "bit i is bit i, LSB first"
    assert Bitmap.from_bytes(packed, length) == Bitmap(length, ones)


@given(st.integers(0, 200), st.binary(max_size=30))
def test_bytes_that_are_no_bitmap_of_this_length_are_refused(length: int, packed: bytes) -> None:
    fits = len(packed) == (length + 7) // 8 and int.from_bytes(packed, "little") >> length == 0
    if fits:
        assert Bitmap.from_bytes(packed, length).to_bytes() == packed
    else:
        with pytest.raises(ValueError, match="bitmap"):
            Bitmap.from_bytes(packed, length)


@given(sets(), st.data())
def test_add_and_discard_change_one_bit(pair: tuple[int, set[int]], data: st.DataObject) -> None:
    length, ones = pair
    bitmap = Bitmap(length, ones)
    for index in data.draw(st.lists(st.integers(0, max(0, length - 1)), max_size=20)) if length else ():
        change = data.draw(st.sampled_from(["add", "discard"]))
        getattr(bitmap, change)(index)
        getattr(ones, change)(index)
        assert set(bitmap) == ones
