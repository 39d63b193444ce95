"""What a person sees of other machines: sources and peers apart, staying, the first line, who lied."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, cast

import pytest

from diachunk.api.sharing import Sharing, Sociable
from diachunk.cli import pace
from diachunk.cli.fetch_lines import books, conclude, how_shared, stay
from diachunk.cli.screen import picture
from diachunk.cli.talk import Talk
from diachunk.cli.tally import Tally
from diachunk.config import Config
from diachunk.errors import Interrupted
from diachunk.limits import DEFAULT
from diachunk.schedule.health import Concurrency, Health, Tier
from diachunk.transfer.assemble import Report
from diachunk.transfer.progress import SourceStatus, Status


def health(label: str, *, peer: bool, verified: int = 0, **more: Any) -> Health:
    concurrency = Concurrency(1, 1)
    return Health(label, Tier.NETWORK, DEFAULT, concurrency, verified_bytes=verified, peer=peer, **more)


def said(speak: Callable[[Talk], object]) -> str:
    with redirect_stderr(io.StringIO()) as heard:
        speak(Talk())
    return heard.getvalue()


def test_the_end_says_how_much_came_from_peers_and_who_lied() -> None:
    sources = (
        health("10.0.0.7:8420", peer=True, verified=6_000_000),
        health("10.0.0.8:8420", peer=True, verified=2_000_000),
        health("example.org", peer=False, verified=1_000_000),
        health("10.0.0.9:8420", peer=True, out="wrong bytes 3 times", bad_chunks=3),
        health("10.0.0.10:8420", peer=True, faults=2, last_fault="connection refused"),
    )
    report = Report(9_000_000, 0, 0, 9_000_000, 0, 1.0, sources=sources)
    lines = said(lambda talk: conclude(talk, report)).splitlines()
    assert lines == [
        "fetched 9.0 MB in 1.0 s (9.0 MB/s), reused 0 B; 8.0 MB from 2 peers, 1.0 MB from 1 origin",
        "  peer 10.0.0.9:8420: wrong bytes 3 times; do not trust it",
    ]
    facts = books(report)
    assert facts["from_peers_bytes"] == 8_000_000
    assert [each["peer"] for each in cast(list[dict[str, object]], facts["sources"])][:3] == [
        True,
        True,
        False,
    ]


def test_the_screen_tells_peers_from_origins() -> None:
    tally = Tally({"model": 100})
    sources = (
        SourceStatus("10.0.0.7:8420", 9e6, 2, 50, "", peer=True),
        SourceStatus("example.org", 1e6, 1, 10, ""),
    )
    tally.take(Status(40, 1e7, 4.0, "", sources))
    shown = "\n".join(line.plain for line in picture(tally, width=100))
    assert "limited by: peer 10.0.0.7:8420 and 1 more" in shown
    assert "  peer 10.0.0.7:8420" in shown
    assert "  example.org" in shown


class Lingering:
    """A Sharing of which only the staying is asked."""

    linger_s = 60.0

    def __init__(self, counts: list[int], error: BaseException | None = None) -> None:
        self._counts = counts
        self._error = error

    def linger(self, tell: Callable[[int], None]) -> None:
        for count in self._counts:
            tell(count)
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), Interrupted("stopped")])
def test_staying_is_said_once_and_can_be_ended_without_harm(error: BaseException | None) -> None:
    sharing = cast(Sharing, Lingering([3, 2, 0], error))
    assert said(lambda talk: stay(talk, sharing, "/there")).splitlines() == [
        "staying for 3 machines that are not done yet, at most 1 min; Ctrl-C ends it, nothing is lost"
    ]


def test_nothing_is_said_where_nobody_is_waited_for() -> None:
    assert said(lambda talk: stay(talk, cast(Sharing, Lingering([])), "/there")) == ""


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[Callable[..., Sharing]]:
    made: list[Sharing] = []

    def make(**how: Any) -> Sharing:
        settings = how.pop("settings", {})
        config = Config(tmp_path / "store", port=how.pop("port", 18420), **settings)
        made.append(Sharing(config, Sociable(**how)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_first_line_says_whether_it_shares_and_with_whom(sharing: Callable[..., Sharing]) -> None:
    alone = sharing(share=False)
    assert alone.open() is None
    assert how_shared(alone) == how_shared(None) == "not sharing"
    one = sharing(share=True, settings={"allow": ("192.0.2.0/24",)})
    one.open()
    other = sharing(share=True)
    other.open()
    assert one.port is not None
    assert how_shared(one) == (f"sharing on port {one.port} with this machine's networks and 192.0.2.0/24")
    assert other.port not in (None, one.port)


def test_all_ports_taken_is_a_notice_and_the_fetch_goes_on_with_what_others_give(
    sharing: Callable[..., Sharing], tmp_path: Path
) -> None:
    from diachunk.transfer.progress import Notice

    heard: list[object] = []
    holder = sharing(share=True, port=65535)
    holder.open()
    assert holder.port == 65535
    late = Sharing(Config(tmp_path / "store", port=65535), Sociable(share=True), heard.append)
    assert late.open() is not None
    assert late.port is None
    assert heard == [Notice("cannot share: port 65535 is taken")]
    late.close()


def test_a_secret_that_others_can_read_means_no_company_and_no_failed_fetch(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    token.chmod(0o644)
    heard: list[Any] = []
    config = Config(tmp_path / "store", token_file=token)
    with Sharing(config, Sociable(share=True), heard.append) as one:
        assert one.open() is None
        assert one.port is None
    assert len(heard) == 1
    assert "others may read or change it" in heard[0].text


def test_how_fast_machines_were_is_remembered_and_nonsense_is_not_believed(tmp_path: Path) -> None:
    pace.remember_peers(tmp_path, {"10.0.0.7:8420": 5, "10.0.0.8:8420": 7})
    pace.remember_peers(tmp_path, {"10.0.0.7:8420": 6})
    assert pace.recall_peers(tmp_path) == {"10.0.0.7:8420": 6, "10.0.0.8:8420": 7}
    for text in ("", "[1]", "[" * 9999, '{"a": true, "b": -1, "c": "x"}'):
        (tmp_path / ".peer-rates").write_text(text)
        assert pace.recall_peers(tmp_path) == {}
