"""Content-Range (RFC 9110, 14.4): written ones are read back, and nothing else passes unnoticed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diachunk.sources.base import SourceFault
from diachunk.sources.reply import check_range, parse_content_range, retry_after_s

NUMBERS = st.integers(0, 10**19 - 1)


@given(NUMBERS, NUMBERS, st.none() | NUMBERS)
def test_consistent_ranges_are_read_and_others_refused(first: int, last: int, total: int | None) -> None:
    text = f"bytes {first}-{last}/{'*' if total is None else total}"
    if first <= last and (total is None or last < total):
        assert parse_content_range(text) == (first, last, total)
    else:
        with pytest.raises(ValueError, match="contradicts itself"):
            parse_content_range(text)


@given(st.text(max_size=40) | st.from_regex(r"bytes [0-9*-]{1,8}/[0-9*]{1,5}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        first, last, total = parse_content_range(text)
    except ValueError:
        return
    assert re.fullmatch(rf"\s*bytes\s+0*{first}-0*{last}/(\*|0*{total})\s*", text, re.ASCII | re.IGNORECASE)


@given(st.integers(0, 50), st.integers(1, 50), st.integers(1, 100), st.integers(0, 50), st.integers(0, 60))
def test_no_other_range_than_the_one_asked_for_passes(
    first: int, size: int, file_size: int, got_first: int, got_last: int
) -> None:
    headers = {"Content-Range": f"bytes {got_first}-{got_last}/{file_size}"}
    right = (got_first, got_last) == (first, first + size - 1) and got_last < file_size
    if right:
        check_range(206, headers, first, size, file_size)
    else:
        with pytest.raises(SourceFault):
            check_range(206, headers, first, size, file_size)


@given(st.text(max_size=60))
def test_any_retry_after_is_a_wait_of_zero_or_more(text: str) -> None:
    assert retry_after_s({"Retry-After": text}, now=0.0) >= 0.0
