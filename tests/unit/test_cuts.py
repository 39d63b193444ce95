from __future__ import annotations

import pytest

from diachunk.chunking.cuts import RULE, cut_sizes, rule_for
from diachunk.formats.base import TensorSpan
from diachunk.formats.registry import Layout
from diachunk.limits import CHUNK_BYTES, TENSOR_CUT_BYTES, KiB, MiB
from diachunk.manifest import model


def span(offset: int, size: int) -> TensorSpan:
    return TensorSpan("x", "", (), offset, size)


def cut(size_bytes: int, *spans: TensorSpan) -> list[int]:
    return list(cut_sizes(size_bytes, spans))


def test_the_rule_is_the_one_that_manifests_name() -> None:
    assert rule_for(Layout()) == RULE == model.RULE == "tensor-4m/1"
    assert rule_for(Layout("npy", (), builtin=False)) == "tensor-4m/1+npy"


def test_the_numbers_of_the_rule() -> None:
    assert (CHUNK_BYTES, TENSOR_CUT_BYTES) == (4_194_304, 262_144)


def test_an_empty_file_has_no_chunks() -> None:
    assert cut(0) == []
    assert cut(0, span(0, 0)) == []


@pytest.mark.parametrize(
    ("size_bytes", "sizes"),
    [
        (1, [1]),
        (4 * MiB - 1, [4 * MiB - 1]),
        (4 * MiB, [4 * MiB]),
        (4 * MiB + 1, [4 * MiB, 1]),
        (9 * MiB, [4 * MiB, 4 * MiB, MiB]),
    ],
)
def test_a_plain_file_is_cut_every_4_mib(size_bytes: int, sizes: list[int]) -> None:
    assert cut(size_bytes) == sizes


def test_a_tensor_is_cut_out_of_what_surrounds_it() -> None:
    assert cut(10 * MiB, span(100, 5 * MiB)) == [100, 4 * MiB, MiB, 4 * MiB, MiB - 100]


def test_a_tensor_of_256_kib_is_cut_and_a_smaller_one_is_not() -> None:
    assert cut(MiB, span(100, 256 * KiB)) == [100, 256 * KiB, MiB - 256 * KiB - 100]
    assert cut(MiB, span(100, 256 * KiB - 1)) == [MiB]


def test_adjacent_tensors_and_those_at_the_ends_make_no_empty_chunks() -> None:
    assert cut(2 * MiB, span(0, MiB), span(MiB, MiB)) == [MiB, MiB]


def test_the_order_of_the_spans_does_not_matter() -> None:
    spans = [span(0, MiB), span(3 * MiB, 5 * MiB), span(MiB, 300 * KiB)]
    assert cut(9 * MiB, *spans) == cut(9 * MiB, *spans[::-1])


def test_sizes_are_32_bits_wide_in_memory() -> None:
    sizes = cut_sizes(9 * MiB, [])
    assert (sizes.typecode, sizes.itemsize) == ("I", 4)


@pytest.mark.parametrize("bad", [span(0, MiB + 1), span(-1, 1), span(1, -1), span(MiB + 1, 0)])
def test_a_tensor_outside_the_file_is_an_error(bad: TensorSpan) -> None:
    with pytest.raises(ValueError, match="outside"):
        cut(MiB, bad)


def test_a_negative_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="-1"):
        cut(-1)


def test_a_terabyte_is_cut_into_a_quarter_of_a_million_chunks() -> None:
    sizes = cut_sizes(1 << 40, [])
    assert (len(sizes), set(sizes)) == (1 << 18, {CHUNK_BYTES})
