"""The edges of Bitmap; its algebra is in tests/property."""

from __future__ import annotations

import pytest

from diachunk.bitmap import Bitmap


def test_full_sets_no_bit_past_its_end() -> None:
    assert Bitmap.full(0).to_bytes() == b""
    assert Bitmap.full(8).to_bytes() == b"\xff"
    assert Bitmap.full(11).to_bytes() == b"\xff\x07"
    assert len(Bitmap.full(11)) == 11


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_a_bit_outside_is_an_error_to_set_and_no_member(index: int) -> None:
    bitmap = Bitmap.full(3)
    for change in (bitmap.add, bitmap.discard):
        with pytest.raises(IndexError):
            change(index)
    assert index not in bitmap
    assert bitmap == Bitmap.full(3)


def test_equality_is_of_length_and_bits() -> None:
    assert Bitmap(9, [1]) == Bitmap(9, [1])
    assert Bitmap(9, [1]) != Bitmap(10, [1])
    assert Bitmap(9, [1]) != Bitmap(9, [2])
    assert Bitmap(9) != {1}


def test_it_is_no_dictionary_key_because_it_can_change() -> None:
    with pytest.raises(TypeError):
        hash(Bitmap(1))


def test_an_empty_one_is_false() -> None:
    assert not Bitmap(9)
    assert Bitmap(9, [8])


def test_repr_says_how_many_of_how_many() -> None:
    assert repr(Bitmap(9, [1, 2])) == "<Bitmap 2/9>"
