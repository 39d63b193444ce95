"""Trust between real machines: one serves, the other asks it by name, by id, and for what a recipe names."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import diachunk
from diachunk.errors import TrustError, UsageError
from diachunk.store.store import Store
from diachunk.testing import faults
from diachunk.testing.hub_faults import Part
from fixtures.checkpoints import tree
from fixtures.command_line import COMMAND
from fixtures.hub_world import MODEL, VOCODER, hub_serving, noise, two_parts, vocoder_files
from fixtures.signing_keys import Keys, needs_ssh_keygen

pytestmark = [needs_ssh_keygen, pytest.mark.loopback, pytest.mark.usefixtures("quick")]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tree(tmp_path / "files", {"weights.bin": noise("nodes", 700_000)})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def serving(home: Path, **environment: str) -> Iterator[str]:
    """`diachunk serve` of a store, on loopback; gives its address."""
    port = free_port()
    command = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "DIACHUNK_HOME": str(home), **environment}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(process, port)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=30)


def wait_for(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/node", timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return  # it answers: with 401
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"serve does not answer: {process.communicate(timeout=5)[1]}")


def trusting(monkeypatch: pytest.MonkeyPatch, keys: Keys, *, strict: bool = False) -> None:
    monkeypatch.setenv("DIACHUNK_ALLOWED_SIGNERS", str(keys.allowed))
    monkeypatch.setenv("DIACHUNK_REQUIRE_SIGNED", str(strict).lower())


def test_a_signed_name_is_taken_and_an_older_one_is_not_though_the_peer_is_named(
    files: Path, home: Path, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, stolen = tmp_path / "lab", tmp_path / "stolen"
    old = diachunk.publish([files], name="lab/a", sign=keys.alice, copy=True, home=lab)
    shutil.copytree(lab, stolen, symlinks=True)
    (files / "weights.bin").write_bytes(noise("new", 700_000))
    new = diachunk.publish([files], name="lab/a", sign=keys.alice, copy=True, force=True, home=lab)
    trusting(monkeypatch, keys, strict=True)
    with serving(lab) as address:
        got = diachunk.fetch("lab/a", peers=[address], home=home).manifest
    assert got.hex_id == new.id
    diachunk.rm(["lab/a"], home=home)
    with serving(stolen) as address:
        with pytest.raises(TrustError, match="older version, signed by alice@lab"):
            diachunk.fetch("lab/a", peers=[address], home=home)
        assert diachunk.fetch(old.id, peers=[address], home=home).manifest.hex_id == old.id, "by its id"


def test_what_must_be_signed_is_not_taken_from_a_named_peer_either(
    files: Path, home: Path, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = diachunk.publish([files], name="lab/a", home=tmp_path / "lab")
    trusting(monkeypatch, keys, strict=True)
    with serving(tmp_path / "lab") as address:
        for target in ("lab/a", unsigned.id):
            with pytest.raises(TrustError, match="require_signed"):
                diachunk.fetch(target, peers=[address], home=home)
        assert Store.open(home).catalog.ids() == []
        trusting(monkeypatch, keys)
        assert diachunk.fetch("lab/a", peers=[address], home=home).manifest.hex_id == unsigned.id


def test_what_is_private_is_there_under_the_secret_alone(
    files: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret that the lab shares\n")
    secret.chmod(0o600)
    published = diachunk.publish([files], name="lab/a", private=True, home=tmp_path / "lab")
    with serving(tmp_path / "lab") as address, pytest.raises(UsageError):
        diachunk.fetch("lab/a", peers=[address], home=home)
    with serving(tmp_path / "lab", DIACHUNK_TOKEN_FILE=str(secret)) as address:
        with pytest.raises(TrustError, match="secret; this machine has none") as caught:
            diachunk.fetch(published.id, peers=[address], home=home)
        assert "token_file" in caught.value.hint
        monkeypatch.setenv("DIACHUNK_TOKEN_FILE", str(secret))
        assert diachunk.fetch("lab/a", peers=[address], home=home).manifest.hex_id == published.id


def test_a_recipe_that_a_machine_has_comes_from_there_while_upstream_gives_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "r.toml"
    with hub_serving(monkeypatch, {VOCODER: vocoder_files()}) as hub:
        sources.write_text(f'name = "lab/r"\n[[component]]\nname = "codec"\nhub = "{VOCODER}"\n')
        first = diachunk.publish([sources], home=tmp_path / "first")
        hub.fail(Part.CDN, faults.Status(503))
        hub.fail(Part.RESOLVE, faults.Status(503))
        with serving(tmp_path / "first") as address:
            second = diachunk.fetch(sources, peers=[address], home=home)
        assert second.manifest.hex_id == first.id
        assert second.report.fetched_bytes == second.manifest.total_bytes
    assert (second.directory / "codec" / "codec.bin").read_bytes() == vocoder_files()["codec.bin"]


@pytest.mark.parametrize("there", ["the whole", "the part"])
def test_a_part_of_a_recipe_comes_from_a_machine_that_has_the_whole_or_the_part(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    with hub_serving(monkeypatch, {MODEL: {"model.bin": b"m" * 90_000}, VOCODER: vocoder_files()}) as hub:
        recipe = two_parts(tmp_path)
        if there == "the part":
            theirs = diachunk.fetch(recipe, components=["vocoder"], home=tmp_path / "first").manifest
        else:
            theirs = diachunk.publish([recipe], home=tmp_path / "first").manifest
        hub.fail(Part.CDN, faults.Status(503))
        hub.fail(Part.RESOLVE, faults.Status(503))
        with serving(tmp_path / "first") as address:
            ours = diachunk.fetch(recipe, components=["vocoder"], peers=[address], home=home)
        assert ours.manifest.ref == "lab/two@main.vocoder"
        assert (ours.manifest.id == theirs.id) == (there == "the part")
        assert ours.report.fetched_bytes == ours.manifest.total_bytes
        assert Store.open(home).catalog.ids() == [ours.manifest.id], "no claim of theirs about the rest stays"
    assert (ours.directory / "vocoder" / "codec.bin").read_bytes() == vocoder_files()["codec.bin"]
