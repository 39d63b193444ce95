"""Numbers as people read them."""

from __future__ import annotations

import pytest

from diachunk.cli import text


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (307_000_000, "307.0 MB"),
        (6_444_642_304, "6.4 GB"),
        (10**18, "1000.0 PB"),
        (-4_194_304, "-4.2 MB"),
    ],
)
def test_sizes_are_decimal_and_short(size_bytes: int, shown: str) -> None:
    assert text.size(size_bytes) == shown
    assert len(shown) <= 9


@pytest.mark.parametrize(
    ("seconds", "sentence", "column", "estimate"),
    [
        (0.034, "0.03 s", "0:00", "a few seconds"),
        (4.2, "4.2 s", "0:04", "a few seconds"),
        (59.7, "1 min", "1:00", "about 60 s"),
        (125, "2 min 5 s", "2:05", "about 2 min"),
        (3723, "1 h 2 min", "1:02:03", "about 62 min"),
        (200_000, "2 days", "55:33:20", "about 2 days"),
        (10**6, "11 days", "11 days", "about 12 days"),
    ],
)
def test_durations_by_where_they_stand(seconds: float, sentence: str, column: str, estimate: str) -> None:
    assert (text.duration(seconds), text.clock(seconds), text.about(seconds)) == (sentence, column, estimate)


def test_an_unknown_time_is_blank() -> None:
    assert text.clock(None) == ""


def test_a_hundred_percent_means_all_of_it() -> None:
    assert text.percent(999_999, 1_000_000) == "99%"
    assert text.percent(5, 5) == "100%"
    assert text.percent(0, 0) == "100%"


def test_columns_line_up_and_cannot_steer_the_terminal() -> None:
    lines = text.columns([("1.0 MB", "name"), ("999 B", "evil\x1b[2J\u202ename")], right=(0,))
    assert lines == ["1.0 MB  name", " 999 B  evil\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}name"]


def test_a_command_to_paste_is_quoted() -> None:
    assert text.command("verify", "./my file.json") == "`diachunk verify './my file.json'`"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3, "just now"), (3700, "1 h ago"), (90_000, "1 day ago"), (200_000, "2 days ago")]
)
def test_ago(seconds: float, shown: str) -> None:
    assert text.ago(seconds) == shown
