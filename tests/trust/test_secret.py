"""The lab's secret (P13): what proves it, what does not, and which files it is read from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3

from diachunk.errors import TrustError, UsageError
from diachunk.sources.secret import CLOCK_SKEW_S, Secret

VALUE = b"correct horse battery staple"
NOW = 1_764_000_000
TARGET = "/v1/manifests/" + "ab" * 32 + "/have?since=0123456789abcdef:7&wait=20"
ADDRESS = "10.0.0.7:8420"


def proof(method: str = "GET", target: str = TARGET, address: str = ADDRESS, now: float = NOW) -> str:
    return Secret(VALUE).proof(method, target, address, now)


def check(
    header: str | None, method: str = "GET", target: str = TARGET, address: str = ADDRESS, now: float = NOW
) -> bool:
    return Secret(VALUE).check(header, method, target, address, now)


def test_the_proof_is_the_one_of_the_protocol() -> None:
    key = blake3(VALUE, derive_key_context="diachunk lab secret v1").digest()
    mac = blake3(f"GET {TARGET}\n{ADDRESS}\n{NOW}".encode(), key=key).hexdigest()
    assert proof(now=NOW + 0.9) == f"Diachunk {NOW}:{mac}"
    assert mac == "a681a44472dced042c9ec995dddc9b2542c8c275bd6d0798b10578aa6e8212f8"


def test_a_proof_and_the_secret_itself_are_taken() -> None:
    assert check(proof())
    assert check("Bearer " + VALUE.decode())
    assert check(" bearer  " + VALUE.decode() + " ")
    assert check(proof().replace("Diachunk", "diachunk"))


def test_a_proof_is_good_for_one_request_to_one_address_alone() -> None:
    given = proof()
    assert not check(given, method="POST")
    assert not check(given, target="/v1/node")
    assert not check(given, target=TARGET.partition("?")[0])
    assert not check(given, address="10.0.0.8:8420")
    assert not check(given, address="10.0.0.7:8421")
    assert not Secret(b"another secret, as long").check(given, "GET", TARGET, ADDRESS, NOW)


@pytest.mark.parametrize(("away_s", "taken"), [(CLOCK_SKEW_S, True), (CLOCK_SKEW_S + 1, False)])
def test_a_proof_ages_and_clocks_may_differ(away_s: int, taken: bool) -> None:
    assert check(proof(), now=NOW + away_s) is taken
    assert check(proof(), now=NOW - away_s) is taken


def test_the_moment_cannot_be_moved() -> None:
    mac = proof().rpartition(":")[2]
    assert not check(f"Diachunk {NOW + 500}:{mac}", now=NOW + 500)


@pytest.mark.parametrize(
    ("dialled", "came_in_on"),
    [
        ("[fe80::1%eth0]:8420", "[fe80::1%wlan3]:8420"),
        ("10.0.0.7:8420", "[::ffff:10.0.0.7]:8420"),
        ("[FD00:0::7]:8420", "[fd00::7]:8420"),
    ],
)
def test_both_ends_may_write_one_address_differently(dialled: str, came_in_on: str) -> None:
    assert check(proof(address=dialled), address=came_in_on)


def test_an_ipv6_address_is_not_another() -> None:
    assert not check(proof(address="[fd00::7]:8420"), address="[fd00::8]:8420")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer correct horse battery stapl",
        "Bearer correct horse battery staple.",
        "Bearer \udcff\ud800 ünïcode \0",
        "Basic " + VALUE.decode(),
        VALUE.decode(),
        "Diachunk",
        "Diachunk :",
        f"Diachunk {NOW}:",
        f"Diachunk {NOW}:{'0' * 64}",
        f"Diachunk {NOW}:{'G' * 64}",
        f"Diachunk {NOW}:{'0' * 63}\u0665",
        f"Diachunk {'9' * 5000}:{'0' * 64}",
        f"Diachunk -{NOW}:{'0' * 64}",
        f"Diachunk {NOW}.0:{'0' * 64}",
        "Diachunk ١٧٦٤٠٠٠٠٠٠:" + "0" * 64,
        "Bearer " + "x" * 100_000,
    ],
)
def test_what_is_no_proof_is_refused_and_nothing_raised(header: str | None) -> None:
    assert check(header) is False


def test_hostile_targets_and_addresses_raise_nothing() -> None:
    for text in ("", "\ud800", "[::1", "[1.2.3.4]:99999", "999.1.1.1:1", "::::%:1", "x" * 70_000):
        assert check(proof(), target=text) is False
        assert check(proof(), address=text) is False


def test_the_secret_is_shown_nowhere() -> None:
    secret = Secret(VALUE)
    assert repr(secret) == str(secret) == "Secret(…)"
    kept = b"".join(getattr(secret, name) for name in Secret.__slots__)
    assert VALUE not in kept


def secret_file(tmp_path: Path, data: bytes = VALUE + b"\n", mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_file_is_read_without_the_space_around_it(tmp_path: Path) -> None:
    secret = Secret.load(secret_file(tmp_path, b"  " + VALUE + b"\r\n\n"))
    assert secret.check(proof(), "GET", TARGET, ADDRESS, NOW)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_read_is_refused_with_the_cure(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = secret_file(tmp_path, mode=mode)
    if not path.stat().st_uid:
        os.chown(path, 1000, -1)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid)
    with pytest.raises(TrustError, match="others may read or change") as caught:
        Secret.load(path)
    assert caught.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    Secret.load(path)


@pytest.mark.parametrize(("me", "taken"), [("owner", False), ("another", True)])
def test_a_group_may_read_what_somebody_else_keeps_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, me: str, taken: bool
) -> None:
    path = secret_file(tmp_path, mode=0o640)
    owner = path.stat().st_uid or 1000
    if not path.stat().st_uid:
        os.chown(path, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: owner if me == "owner" else owner + 1)
    if taken:
        Secret.load(path)
    else:
        with pytest.raises(TrustError):
            Secret.load(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "16 characters"),
        (b" \n", "16 characters"),
        (b"fifteen letters\n", "16 characters"),
        (b"two lines of\ntext, long enough", "one line"),
        (b"\0" * 32, "one line"),
        (b"x" * 5000, "over 4,096"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Secret.load(secret_file(tmp_path, data))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path, said in ((tmp_path / "none", "not there"), (tmp_path, "directory"), (pipe, "not a file")):
        with pytest.raises(UsageError, match=said):
            Secret.load(path)
    with pytest.raises(UsageError) as caught:
        Secret.load(tmp_path / "none")
    assert "openssl rand" in caught.value.hint
