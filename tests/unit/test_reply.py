"""Is this reply the bytes that were asked for? Each way it can be something else."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from diachunk.schedule.health import Fault
from diachunk.sources.base import SourceFault
from diachunk.sources.reply import check_range, check_status, check_stream, parse_content_range, retry_after_s

GOOD = {"Content-Range": "bytes 100-199/1000", "Content-Length": "100"}


def fault_of(status: int, headers: dict[str, str]) -> SourceFault:
    """The fault of a reply to: bytes 100-199 of a file of 1000."""
    with pytest.raises(SourceFault) as caught:
        check_range(status, headers, 100, 100, 1000)
    assert not caught.value.resumable
    return caught.value


@pytest.mark.parametrize(
    "headers",
    [
        GOOD,
        {"Content-Range": "bytes 100-199/*"},
        {"Content-Range": "Bytes  100-199/1000", "Content-Encoding": "identity"},
        {**GOOD, "Content-Type": "text/html"},
    ],
)
def test_the_range_asked_for_is_accepted(headers: dict[str, str]) -> None:
    check_range(206, headers, 100, 100, 1000)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "bad Content-Range"),
        ({"Content-Range": "bytes 100-199"}, "bad Content-Range"),
        ({"Content-Range": "bytes */1000"}, "bad Content-Range"),
        ({"Content-Range": "bytes 199-100/1000"}, "contradicts itself"),
        ({"Content-Range": "bytes 100-199/150"}, "contradicts itself"),
        ({"Content-Range": "bytes 100-199/1001"}, "1,001 bytes, not 1,000"),
        ({"Content-Range": "bytes 0-99/1000"}, "bytes 0-99, not 100-199"),
        ({"Content-Range": "bytes 100-198/1000"}, "bytes 100-198"),
        ({**GOOD, "Content-Length": "101"}, "announces 101 bytes"),
        ({**GOOD, "Content-Encoding": "gzip"}, "gzip-encoded"),
        ({"Content-Type": "multipart/byteranges; boundary=x"}, "bad Content-Range"),
    ],
)
def test_another_range_is_something_else(headers: dict[str, str], words: str) -> None:
    fault = fault_of(206, headers)
    assert fault.fault is (Fault.FAILED if words == "bad Content-Range" else Fault.GARBLED)
    assert words in fault.detail


def test_the_whole_file_to_a_range_request_means_no_ranges() -> None:
    assert fault_of(200, {"Content-Length": "1000"}).fault is Fault.NO_RANGES
    assert fault_of(200, {}).fault is Fault.NO_RANGES, "chunked coding says no length"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "512", "Content-Type": "text/html"},
        {"Content-Type": "text/html; charset=utf-8"},
        {"Content-Length": "100"},
        {"Content-Length": "1000", "Content-Encoding": "br"},
    ],
)
def test_something_else_with_200_is_no_file(headers: dict[str, str]) -> None:
    assert fault_of(200, headers).fault is Fault.GARBLED


def test_200_is_right_when_the_range_is_the_whole_file() -> None:
    check_range(200, {"Content-Length": "1000"}, 0, 1000, 1000)
    check_stream(200, {"Content-Length": "1000"}, 1000)
    check_stream(206, {"Content-Range": "bytes 0-999/1000"}, 1000)
    with pytest.raises(SourceFault, match="not the file"):
        check_stream(200, {"Content-Length": "999"}, 1000)


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (404, Fault.MISSING),
        (410, Fault.MISSING),
        (401, Fault.DENIED),
        (403, Fault.DENIED),
        (407, Fault.DENIED),
        (429, Fault.BUSY),
        (503, Fault.BUSY),
        (416, Fault.GARBLED),
        (500, Fault.FAILED),
        (502, Fault.FAILED),
        (204, Fault.FAILED),
        (304, Fault.FAILED),
        (999, Fault.FAILED),
    ],
)
def test_each_status_has_its_fault(status: int, fault: Fault) -> None:
    with pytest.raises(SourceFault) as caught:
        check_status(status, {})
    assert caught.value.fault is fault
    assert str(status) in caught.value.detail


def test_busy_says_how_long_to_wait() -> None:
    with pytest.raises(SourceFault) as caught:
        check_status(429, {"Retry-After": "7"})
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, 1e6),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("\u0661", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        (formatdate(1000, usegmt=True), 0.0),
        (formatdate(5090, usegmt=True), 90.0),
        ("Wed, 99 Foo 20260 25:61:61 GMT", 0.0),
    ],
)
def test_retry_after_is_a_delay_or_a_date(text: str, seconds: float) -> None:
    assert retry_after_s({"Retry-After": text}, now=5000.0) == seconds


def test_no_retry_after_is_no_wait() -> None:
    assert retry_after_s({}) == 0.0


def test_content_range_is_read() -> None:
    assert parse_content_range("bytes 0-0/1") == (0, 0, 1)
    assert parse_content_range("bytes 5-9/*") == (5, 9, None)
