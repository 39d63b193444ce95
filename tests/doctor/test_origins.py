"""Origins: each fault of a server is told apart, and the command that cures it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import (
    Fault,
    Html,
    IgnoreRange,
    NotFound,
    RetryAfter,
    StallBeforeHeader,
    Status,
    Unauthorized,
    WrongContentRange,
    always,
)
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, published, tree
from fixtures.doctored import Diagnosis, call, cured, diagnose
from fixtures.raw_answers import nothing_of_http
from fixtures.raw_server import RawServer
from fixtures.settings import write_config

pytestmark = pytest.mark.loopback


@pytest.fixture(autouse=True)
def known(user: Path) -> Checkpoint:
    """A checkpoint of which the store knows the manifest, so that there is a file to ask for."""
    files = {"model/weights.bin": bytes(range(256)) * 400, "model/config.json": b"{}\n"}
    done = published(tree(user / "served", files), "lab/known")
    diachunk.publish([f"model={done.root / 'model'}"], name="lab/known")
    return done


@pytest.fixture
def good(known: Checkpoint) -> Iterator[Nginx]:
    with Nginx(known.root) as server:
        yield server


def asked(user: Path, *origins: str, **environment: str | None) -> Diagnosis:
    write_config(user, {}, f"origins = {list(origins)!r}")
    return diagnose(**environment)


def test_an_origin_that_is_well(user: Path, good: Nginx) -> None:
    found = asked(user, good.url)
    assert found.worse == []
    assert [each for each in found.findings if "answers, in ranges" in each["what"]]
    assert [each for each in found.findings if "the clock agrees" in each["what"]]
    assert sum(each.body_bytes for each in good.requests()) < 1000, "no file was read"


def test_an_origin_that_ignores_range(user: Path, known: Checkpoint) -> None:
    with Nginx(known.root, ranges=False) as server:
        found = asked(user, server.url)
    finding = found.the("ignores Range: downloads from it cannot resume or go in parallel", "warning")
    assert "mirror" in finding["cure"]


@pytest.mark.parametrize(
    ("fault", "words", "level", "code"),
    [
        (Html(), "sent an HTML page", "fault", 5),
        (Unauthorized(), "401, it wants a login", "fault", 5),
        (RetryAfter(7), "429, too busy or too many requests; it asks to come back in 7 s", "warning", 0),
        (RetryAfter(7, 503), "503, too busy", "warning", 0),
        (NotFound(), "404 for /model/weights.bin", "warning", 0),
        (Status(500), "answers 500", "fault", 5),
        (WrongContentRange(), "bytes", "warning", 0),
        (IgnoreRange(), "ignores Range", "warning", 0),
        (Status(418), "answers 418", "warning", 0),
    ],
    ids=lambda each: type(each).__name__ if not isinstance(each, str | int) else None,
)
def test_what_an_origin_may_answer(
    user: Path, known: Checkpoint, fault: Fault, words: str, level: str, code: int
) -> None:
    with BadServer(known.root, always(fault)) as server:
        found = asked(user, server.url)
    assert found.the(words, level)["cure"]
    assert found.exit_code == code


def test_the_wait_that_a_server_asks_for_is_in_the_cure(user: Path, known: Checkpoint) -> None:
    with BadServer(known.root, always(RetryAfter(7))) as server:
        assert asked(user, server.url).the("429", "warning")["cure"].startswith("sleep 7 && diachunk doctor")


def test_a_login_that_the_cure_writes_is_used(user: Path, known: Checkpoint) -> None:
    with Nginx(known.root, basic_auth=("ann", "open")) as server:
        finding = asked(user, server.url).the("wants a login", "fault")
        cure = finding["cure"].replace("USER", "ann").replace("PASSWORD", "open")
        assert cured({**finding, "cure": cure}).worse == []
        assert (user / ".netrc").stat().st_mode & 0o077 == 0


def test_a_server_that_is_down_and_up_again(user: Path, good: Nginx) -> None:
    good.stop()
    found = asked(user, good.url)
    assert found.the("connection refused", "fault")["cure"].startswith("curl ")
    assert found.exit_code == 5
    good.start()
    assert diagnose().worse == []


def test_a_server_that_says_nothing_holds_up_nobody(user: Path, known: Checkpoint, good: Nginx) -> None:
    with BadServer(known.root, always(StallBeforeHeader())) as dead:
        started_at = time.monotonic()
        found = asked(user, *(f"{dead.url}/{number}" for number in range(5)), good.url)
        assert time.monotonic() - started_at < 20, (
            "all side by side, six seconds in all; the machine may be busy"
        )
    assert len(found.about("no answer in time")) == 5
    assert [each for each in found.findings if "answers, in ranges" in each["what"]]


def test_a_host_that_does_not_exist(user: Path) -> None:
    found = asked(user, "https://nowhere.invalid/x")
    assert found.the("host name not found", "fault")["cure"].startswith("getent hosts nowhere.invalid")
    assert found.exit_code == 5


def test_what_is_no_web_server(user: Path) -> None:
    with RawServer(nothing_of_http) as server:
        assert asked(user, server.url).the("does not speak HTTP", "fault")


def test_a_certificate_that_nobody_vouches_for(user: Path, known: Checkpoint) -> None:
    with Nginx(known.root, tls=True) as server:
        finding = asked(user, server.url).the("certificate refused", "fault")
        cure = finding["cure"].replace("/etc/ssl/certs/ca-certificates.crt", str(server.cafile))
        assert cured({**finding, "cure": cure}).worse == []


def test_https_asked_of_a_plain_server(user: Path, good: Nginx) -> None:
    finding = asked(user, good.url.replace("http:", "https:")).the("TLS failed", "fault")
    assert "plain http" in finding["cure"]


@pytest.mark.parametrize(
    "text", ["https://example.org:x/", "http://", "https://me:pw@example.org/", "a{path}"]
)
def test_an_origin_that_is_none(user: Path, text: str) -> None:
    found = asked(user, text)
    assert found.exit_code == 5
    assert found.worse


def test_a_directory_that_is_not_mounted(user: Path, tmp_path: Path) -> None:
    finding = asked(user, str(tmp_path / "share")).the("no such directory; is it mounted?", "fault")
    assert finding["cure"].startswith("mount ")
    (tmp_path / "share").mkdir()
    assert diagnose().worse == []


def test_offline_asks_nobody(user: Path, good: Nginx) -> None:
    write_config(user, {}, f'origins = ["{good.url}"]')
    found = diagnose("--offline", https_proxy="http://127.0.0.1:9")
    assert found.worse == []
    assert good.requests() == []


def test_origins_of_the_project_file_are_asked(user: Path, good: Nginx) -> None:
    (user / "diachunk.toml").write_text(f'origins = ["{good.url}"]\n')
    assert [each for each in diagnose().findings if "answers, in ranges" in each["what"]]


def test_a_private_address_that_only_a_manifest_names(user: Path, known: Checkpoint, good: Nginx) -> None:
    done = published(known.root, "lab/away", origins=[good.url], out=user / "away.json")
    assert call("diachunk", "rm", "lab/known").returncode == 0
    (user / "served").rename(user / "moved")
    call("diachunk", "fetch", done.target)  # in vain
    finding = diagnose().the("a private address that only the manifest of", "warning")
    assert finding["cure"].endswith(f"--origin {good.url}  # if you trust it")
    (user / "moved").rename(user / "served")
    assert cured(finding).worse == []
