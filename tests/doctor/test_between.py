"""What stands between: proxies, certificates, the clock, the Hub."""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.checkup import proxies
from diachunk.api.checkup.base import Patient
from diachunk.config import load_config
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Html, RetryAfter, Status, always
from diachunk.testing.servers import Nginx
from fixtures.doctored import cured, diagnose
from fixtures.forward_proxy import ForwardProxy
from fixtures.settings import write_config

pytestmark = pytest.mark.loopback


@pytest.fixture
def nobody() -> Iterator[str]:
    """HOST:PORT where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("variable", ["https_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_does_not_answer(nobody: str, variable: str) -> None:
    setting = {variable: f"http://{nobody}"}
    found = diagnose(**setting)
    finding = found.the("does not answer: Connection refused", "fault")
    assert found.exit_code == 5
    assert variable in finding["cure"]
    assert cured(finding, **setting).worse == []


def test_a_proxy_that_answers() -> None:
    with ForwardProxy() as proxy:
        found = diagnose(https_proxy=f"http://{proxy.address}")
        assert found.worse == []
        assert [each for each in found.findings if f"the proxy {proxy.address} answers" in each["what"]]


def test_a_proxy_of_a_kind_that_is_of_no_use() -> None:
    finding = diagnose(ALL_PROXY="socks5://127.0.0.1:1080").the("is a socks5 proxy", "fault")
    assert cured(finding, ALL_PROXY="socks5://127.0.0.1:1080").worse == []


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY", None])
def test_a_private_name_that_goes_through_the_proxy(user: Path, tmp_path: Path, variable: str | None) -> None:
    with ForwardProxy() as proxy, Nginx(tmp_path) as server:
        write_config(user, {}, f'origins = ["{server.url}"]')
        setting = {"http_proxy": f"http://{proxy.address}", **({variable: "example.org"} if variable else {})}
        finding = diagnose(**setting).the("is private, but requests for it go through the proxy", "warning")
        asked_before = len(proxy.asked)
        assert not cured(finding, **setting).about("is private")
        assert len(proxy.asked) == asked_before


@pytest.mark.parametrize("kind", ["gone", "no certificate", "a directory"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_are_none(tmp_path: Path, variable: str, kind: str) -> None:
    path = tmp_path / "ca.pem"
    if kind == "no certificate":
        path.write_text("hello")
    elif kind == "a directory":
        path.mkdir()
    found = diagnose(**{variable: str(path)})
    finding = found.the(variable, "fault")
    assert found.exit_code == 5
    assert cured(finding, **{variable: str(path)}).worse == []


def test_a_clock_that_is_wrong_is_told_from_the_date_that_an_origin_sends(user: Path, tmp_path: Path) -> None:
    stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 7500))
    with BadServer(tmp_path, always(Status(200, {"Date": stamp}))) as server:
        write_config(user, {}, f'origins = ["{server.url}"]')
        finding = diagnose().the("this machine's clock is 2 h behind that of 127.0.0.1", "warning")
        assert "timedatectl set-ntp true" in finding["cure"]


@pytest.mark.parametrize(
    ("ahead", "level"), [(-300.1, "warning"), (301.0, "warning"), (-299.9, "ok"), (0.0, "ok")]
)
def test_five_minutes_are_the_bound(ahead: float, level: str) -> None:
    patient = Patient({}, clocks=[("one.example", ahead), ("mad.example", 1e9)])
    (finding,) = proxies.clock(patient)
    assert finding.level == level


def test_the_hub_is_asked_only_if_wanted(user: Path, tmp_path: Path) -> None:
    with BadServer(tmp_path, always(Status(404, {"X-Error-Code": "RepoNotFound"}))) as hub:
        setting = {"HF_ENDPOINT": hub.url}
        assert diagnose(**setting).worse == []
        assert hub.exchanges == []
        assert [each for each in diagnose("--online", **setting).findings if "the Hub:" in each["what"]]
        assert len(hub.exchanges) == 1
        write_config(user, {}, 'checkpoints = ["hub:lab/x"]')
        diagnose(**setting)
        assert len(hub.exchanges) == 2
        (user / "config" / "diachunk" / "config.toml").write_text('checkpoints = ["dia-1.6b"]')
        diagnose(**setting)
        assert len(hub.exchanges) == 3
        diagnose("--offline", **setting)
        assert len(hub.exchanges) == 3


@pytest.mark.parametrize(
    ("upstream", "asked"),
    [
        (f'url = "http://localhost/a"\npath = "a"\nsize = 1\nsha256 = "{"a" * 64}"', 0),
        ('hub = "lab/x"', 1),
        ("nonsense", 1),
    ],
)
def test_a_recipe_of_ones_own_servers_asks_no_hub(
    user: Path, tmp_path: Path, upstream: str, asked: int
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'name = "lab/mine"\n[[component]]\nname = "a"\n{upstream}\n')
    write_config(user, {}, f'checkpoints = ["{recipe}"]')
    with BadServer(tmp_path, always(Status(404, {"X-Error-Code": "RepoNotFound"}))) as hub:
        diagnose(HF_ENDPOINT=hub.url)
        assert len(hub.exchanges) == asked


@pytest.mark.parametrize(
    ("fault", "words", "level"),
    [
        (Html(), "sent an HTML page", "fault"),
        (RetryAfter(9), "too many requests from here; come back in 9 s", "warning"),
        (Status(502), "answers 502", "warning"),
        (Status(404), "as no Hub would", "warning"),
    ],
)
def test_what_the_hub_may_answer(tmp_path: Path, fault: Html | Status, words: str, level: str) -> None:
    with BadServer(tmp_path, always(fault)) as hub:
        assert diagnose("--online", HF_ENDPOINT=hub.url).the(words, level)


def test_a_hub_behind_a_proxy_that_is_down_is_no_fault_of_the_endpoint(nobody: str) -> None:
    setting = {"HF_ENDPOINT": "http://hub.example", "http_proxy": f"http://{nobody}"}
    finding = diagnose("--online", **setting).the("the Hub: hub.example: the proxy:", "fault")
    assert finding["cure"].startswith("unset https_proxy")


def test_another_hub_that_is_not_there(nobody: str) -> None:
    finding = diagnose("--online", HF_ENDPOINT=f"http://{nobody}").the("the Hub:", "fault")
    assert finding["cure"].startswith("unset HF_ENDPOINT")


def test_each_machine_that_the_settings_name_is_asked(user: Path, tmp_path: Path) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    for path in (secret, other):
        path.write_text(f"the lab keeps this secret: {path.name}\n")
        path.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        gone = f"127.0.0.1:{listening.getsockname()[1]}"
    settings = dataclasses.replace(load_config(), token_file=secret)
    with diachunk.serve(
        host="127.0.0.1", port=0, discover=False, home=tmp_path / "lab", settings=settings
    ) as it:
        there = f"127.0.0.1:{it.port}"
        write_config(user, {}, f'peers = ["{there}", "{gone}"]')
        said = diagnose(DIACHUNK_TOKEN_FILE=str(secret))
        assert [each for each in said.findings if each["what"] == f"the machine {there} answers"]
        assert (
            "diachunk serve"
            in said.the(f"{gone}, which the settings name: connection refused", "warning")["cure"]
        )
        said = diagnose(DIACHUNK_TOKEN_FILE=str(other))
        assert "token_file" in said.the("wants the lab's secret; this machine has another", "warning")["cure"]
        assert diagnose("--offline", DIACHUNK_TOKEN_FILE=str(other)).about("which the settings name") == []
