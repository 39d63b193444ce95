"""What progress looks like: the picture, the plain lines, the JSON. Events and clock are made up."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from diachunk.cli.lines import JsonLines, PlainLines
from diachunk.cli.screen import Screen, picture
from diachunk.cli.talk import Talk
from diachunk.cli.tally import Tally
from diachunk.transfer.progress import (
    FileDone,
    How,
    Notice,
    Progress,
    SourceStatus,
    SourceTrouble,
    Status,
)

MB = 1_000_000


@dataclass(slots=True)
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Said:
    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)


def status(left: int, rate: float, *sources: SourceStatus, limited_by: str = "") -> Status:
    return Status(left, rate, left / rate if rate else None, limited_by, sources)


def source(label: str, rate: float = 0.0, in_flight: int = 0, state: str = "") -> SourceStatus:
    return SourceStatus(label, rate, in_flight, 0, state)


def halfway(clock: Clock) -> Tally:
    """10 s into a fetch: 20 of 100 MB reused, 30 MB fetched at 3 MB/s; the vocoder waits."""
    tally = Tally({"model": 100 * MB, "vocoder": 10 * MB}, clock)
    tally.take(Progress(20 * MB, "model", How.REUSED))
    for _ in range(40):
        clock.now += 0.25
        tally.take(Progress(3 * MB // 4, "model", How.FETCHED))
        left = 110 * MB - tally.done_bytes
        tally.take(status(left, 3.0 * MB, source("hub.org", 3.0 * MB, 2), limited_by="origin hub.org"))
    return tally


def drawn(tally: Tally, width: int = 80, height: int = 24, *, ascii_only: bool = False) -> list[str]:
    return [line.plain for line in picture(tally, width=width, height=height, ascii_only=ascii_only)]


def test_the_picture_says_how_much_how_fast_how_long_and_what_limits() -> None:
    lines = drawn(halfway(Clock()))
    assert lines[0].split() == ["reused", "fetched", "left", "rate", "eta"]
    assert lines[1].split()[0] == "model"
    assert lines[1].split()[2:] == ["50%", "20.0", "MB", "30.0", "MB", "50.0", "MB", "3.0", "MB/s", "0:17"]
    assert lines[2].split()[2:] == ["0%", "0", "B", "0", "B", "10.0", "MB"]
    assert lines[3].split()[:2] == ["in", "all"]
    assert lines[3].split()[-3:] == ["3.0", "MB/s", "0:20"]
    assert "limited by: origin hub.org 3.0 MB/s" in lines
    assert lines[-1].split() == ["hub.org", "3.0", "MB/s", "2", "requests"]


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (60, ["fetched", "left", "rate", "eta"]),
        (50, ["left", "rate", "eta"]),
        (40, ["rate", "eta"]),
        (20, []),
    ],
)
def test_in_a_narrow_window_how_long_it_takes_stays_longest(width: int, columns: list[str]) -> None:
    lines = drawn(halfway(Clock()), width)
    assert lines[0].split() == columns
    assert ("0:17" in lines[1]) == ("eta" in columns)
    assert "50%" in lines[1]


@pytest.mark.parametrize(("width", "height"), [(200, 50), (80, 24), (60, 24), (40, 12), (20, 9)])
def test_no_line_reaches_the_edge_and_the_picture_fits_the_window(width: int, height: int) -> None:
    clock = Clock()
    tally = Tally({f"component-with-a-long-name-{n}": 10**15 for n in range(40)}, clock)
    tally.take(Progress(10**14, "component-with-a-long-name-7", How.FETCHED))
    labels = [source(f"mirror-{n}.very-long-name.example.org/some/path", state="x" * 300) for n in range(9)]
    tally.take(status(10**15, 0.0, *labels))
    for seconds in (0, 60):
        clock.now += seconds
        lines = drawn(tally, width, height)
        assert max(map(len, lines)) < width
        assert len(lines) < height
    assert any("component-with" in line and "100.0 TB" in line for line in drawn(tally, 100))
    assert "  + 3 more" in drawn(tally)
    assert any(line.endswith("more components") for line in drawn(tally))


def test_columns_stand_under_each_other() -> None:
    lines = drawn(halfway(Clock()))
    for heading in ("reused", "fetched", "left"):
        end = lines[0].index(heading) + len(heading)
        assert all(line[end - 1] != " " and line[end : end + 1] in (" ", "") for line in lines[1:4])


def test_silence_is_explained_by_what_the_sources_do() -> None:
    clock = Clock()
    tally = halfway(clock)
    tally.take(status(60 * MB, 0.0, source("hub.org", state="connection refused; next try in 9 s (try 4)")))
    clock.now += 2.0
    assert not any("nothing for" in line for line in drawn(tally))
    clock.now += 2.5
    lines = drawn(tally)
    assert "nothing for 4 s: nobody gives anything; add --origin or --peer, or wait" in lines
    assert "  hub.org  connection refused; next try in 9 s (try 4)" in lines
    tally.take(status(60 * MB, 0.0, source("hub.org", in_flight=2)))
    assert any("waiting for an answer from hub.org" in line for line in drawn(tally))


def test_before_the_first_status_it_reads_what_is_here() -> None:
    clock = Clock()
    tally = Tally({"model": 5}, clock)
    clock.now += 4
    assert any("reading what is here already" in line for line in drawn(tally))
    tally.take(Notice("another diachunk is fetching model/a; waiting for it"))
    assert any("another diachunk is fetching model/a" in line for line in drawn(tally))


def test_a_source_too_slow_for_a_whole_chunk_still_limits() -> None:
    tally = Tally({"": 5 * MB}, Clock())
    tally.take(status(5 * MB, 80_000.0, source("slow.org", in_flight=2), source("b.org", in_flight=1)))
    assert "limited by: origin slow.org and 1 more 80.0 kB/s" in drawn(tally)
    assert any(line.startswith("all files") for line in drawn(tally))


def test_a_terminal_without_line_drawing_gets_ascii() -> None:
    assert all(line.isascii() for line in drawn(halfway(Clock()), ascii_only=True))


def test_state_from_outside_cannot_steer_the_terminal() -> None:
    tally = Tally({"": 5}, Clock())
    tally.take(status(5, 0.0, source("a\x1b[2J", state="404 \x1b]0;pwned\x07")))
    assert not any(char in line for line in drawn(tally) for char in "\x1b\x07")


def test_nothing_said_can_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Talk().say("404 \x1b[2J\nline")
    Talk().result("a\x9b2J\u202eb")
    told = capsys.readouterr()
    assert told.err == "404 \N{REPLACEMENT CHARACTER}[2J\nline\n"
    assert told.out == "a\N{REPLACEMENT CHARACTER}2J\N{REPLACEMENT CHARACTER}b\n"


def test_the_screen_draws_and_leaves_the_shares_behind() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24, no_color=True, legacy_windows=False)
    with Screen(halfway(Clock()), console) as listen:
        listen(Notice("another diachunk is fetching [bold]x[/bold]"))
        listen(Progress(60 * MB, "model", How.FETCHED))
    text = out.getvalue()
    assert "another diachunk is fetching [bold]x[/bold]" in text
    assert text.rstrip().rpartition("model")[2].count("limited by") == 0


def test_verify_and_publish_show_their_passes_without_a_plan() -> None:
    clock = Clock()
    tally = Tally(clock=clock)
    tally.take(status(100 * MB, 0.0))
    tally.take(Progress(40 * MB, "model", How.HASHED))
    assert drawn(tally)[1].split()[0] == "reading"
    assert drawn(tally)[1].split()[2:6] == ["40%", "40.0", "MB", "60.0"]
    clock.now += 5
    assert any("nothing for 5 s: waiting for the disk" in line for line in drawn(tally))
    tally.take(Progress(60 * MB, "model", How.HASHED))
    tally.take(Progress(1 * MB, "model", How.FETCHED))
    tally.take(status(3 * MB, 0.0))
    assert [(row.name, row.total_bytes) for row in tally.rows.values()] == [
        ("reading", 100 * MB),
        ("repairing", 4 * MB),
    ]


def test_bytes_taken_back_are_taken_off() -> None:
    tally = Tally({"m": 100}, Clock())
    for size in (60, -20, 10):
        tally.take(Progress(size, "m", How.FETCHED))
    assert (tally.done_bytes, tally.left_bytes) == (50, 50)


def test_what_is_reused_at_once_promises_no_early_end() -> None:
    clock = Clock()
    tally = Tally({"model": 100 * MB}, clock)
    for how, megabytes in ((How.REUSED, 0), (How.REUSED, 50), (How.FETCHED, 1), (How.FETCHED, 1)):
        clock.now += 1.0
        tally.take(Progress(megabytes * MB, "model", how))
    assert tally.rows["model"].rate_bps == pytest.approx(2 * MB / 3)
    assert tally.rows["model"].eta_s == pytest.approx(72)


def test_plain_lines_come_every_ten_seconds() -> None:
    clock, said = Clock(), Said()
    listen = PlainLines(Tally({"model": 100 * MB}, clock), said)
    for _ in range(101):
        clock.now += 0.25
        listen(Progress(MB // 4, "model", How.FETCHED))
        listen(status(50 * MB, 1.0 * MB, source("hub.org", MB, 2), limited_by="origin hub.org"))
    assert said.lines == [
        "10.0 MB of 100.0 MB (10%), 1.0 MB/s, about 2 min left; limited by: origin hub.org",
        "20.0 MB of 100.0 MB (20%), 1.0 MB/s, about 80 s left; limited by: origin hub.org",
    ]


def test_plain_lines_tell_of_trouble_once_and_of_silence_why() -> None:
    clock, said = Clock(), Said()
    listen = PlainLines(Tally({"model": 100 * MB}, clock), said, verbose=True)
    for detail in ("refused", "timed out", "refused"):
        clock.now += 1
        listen(SourceTrouble("hub.org", detail))
    assert said.lines == ["hub.org: refused"]
    clock.now += 10
    listen(status(100 * MB, 0.0, source("hub.org", state="refused")))
    listen(FileDone("model", "a.bin", 1))
    assert said.lines[1:] == [
        "0 B of 100.0 MB (0%); nothing for 13 s: nobody gives anything; add --origin or --peer, or wait",
        "complete: model/a.bin",
    ]


def test_json_is_coalesced_to_four_a_second_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with JsonLines(Tally({"model": 1000}, clock), Talk(as_json=True)) as listen:
        for _ in range(1000):
            clock.now += 0.002
            listen(Progress(1, "model", How.FETCHED))
            listen(status(1, 5.0, source("a", 5.0, 1)))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    progress = [each for each in events if each["event"] == "progress"]
    assert len(progress) <= 10
    assert len([each for each in events if each["event"] == "status"]) <= 9
    assert progress[-1]["done_bytes"] == progress[-1]["total_bytes"] == 1000
    assert progress[-1]["parts"] == [
        {"name": "model", "total_bytes": 1000, "left_bytes": 0, "fetched_bytes": 1000}
    ]
    assert all(each["v"] == 1 for each in events)
