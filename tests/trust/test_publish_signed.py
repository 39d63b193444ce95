"""publish --sign and --private, as a person uses them, and what require_signed makes of what comes from outside."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import diachunk
from diachunk.api.trust.signers import Signers
from diachunk.chunking import hashing
from diachunk.errors import TrustError, UsageError
from diachunk.manifest import Manifest, decode, encode
from diachunk.manifest.signed import signatures_of
from diachunk.store.catalog import Catalog
from diachunk.store.store import Store
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import tree
from fixtures.command_line import COMMAND, run
from fixtures.signing_keys import Keys, make_key, needs_ssh_keygen

pytestmark = [needs_ssh_keygen, pytest.mark.loopback, pytest.mark.usefixtures("quick")]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tree(tmp_path / "files", {"model/a.bin": b"a" * 5000})


def signer(manifest: Manifest, keys: Keys) -> str:
    verdict = Signers(keys.allowed).judge(manifest)
    assert verdict.signed is not None, verdict.why
    return verdict.signed.principal


def test_what_is_published_and_signed_is_signed_in_the_store_and_in_the_file(
    files: Path, home: Path, keys: Keys, tmp_path: Path
) -> None:
    out = tmp_path / "m.json"
    published = diachunk.publish([files], name="lab/a", sign=keys.alice, out=out, home=home)
    assert published.signature is not None
    stored = Store.open(home).catalog.get(published.manifest.id)
    for manifest in (published.manifest, stored, decode(out.read_bytes())):
        assert signer(manifest, keys) == "alice@lab"
    assert published.id == diachunk.publish([files], name="lab/a", store=False).id, "the id is the same"


def test_without_a_store_the_file_alone_is_signed(files: Path, keys: Keys, tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    diachunk.publish([files], name="lab/a", sign=keys.alice, out=out, store=False, home=tmp_path / "none")
    assert signer(decode(out.read_bytes()), keys) == "alice@lab"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("by", ["name", "id"])
def test_what_is_here_already_is_signed_without_reading_it(
    files: Path, home: Path, keys: Keys, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = diachunk.publish([files], name="lab/a", home=home)
    (files / "model" / "a.bin").unlink()
    monkeypatch.setattr(hashing, "hash_one", None)
    target = "lab/a" if by == "name" else published.id[:16]
    again = diachunk.publish([target], sign=keys.alice, home=home)
    assert again.id == published.id
    assert signer(Store.open(home).catalog.get(published.manifest.id), keys) == "alice@lab"


def test_signing_again_gives_a_later_serial(files: Path, home: Path, keys: Keys) -> None:
    diachunk.publish([files], name="lab/a", sign=keys.alice, home=home)
    diachunk.publish(["lab/a"], sign=keys.mallory, home=home)
    manifest = diachunk.publish(["lab/a"], sign=keys.alice, home=home).manifest
    serials = [each.serial for each in signatures_of(manifest)]
    assert len(set(serials)) == 3
    assert serials == sorted(serials, reverse=True)
    assert signer(manifest, keys) == "alice@lab"


def test_a_key_that_is_not_there_is_known_before_anything_is_read(
    files: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diachunk.api.publishing.hash_files", None)
    with pytest.raises(UsageError, match="no such key"):
        diachunk.publish([files], name="lab/a", sign=tmp_path / "none", home=home)


def test_a_name_that_stands_for_nothing_here_cannot_be_signed(home: Path, keys: Keys) -> None:
    with pytest.raises(UsageError, match="lab/none"):
        diachunk.publish(["lab/none"], sign=keys.alice, home=home)
    with pytest.raises(UsageError, match="none: no such file"):
        diachunk.publish(["./none"], name="lab/a", sign=keys.alice, home=home)


def test_what_could_not_be_signed_is_published_and_the_way_on_is_said(
    files: Path, home: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("no key\n")
    key.chmod(0o600)
    with pytest.raises(TrustError, match="could not be signed") as caught:
        diachunk.publish([files], name="lab/a", sign=key, home=home)
    assert f"diachunk publish lab/a@main --sign {key}" in caught.value.hint
    assert Store.open(home).catalog.ref("lab/a", "main") is not None


# --- private ---------------------------------------------------------------------------------------------------


def test_private_is_marked_before_the_manifest_is_there(
    files: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was: list[bool] = []
    add = Catalog.add

    def added(self: Catalog, manifest: Manifest) -> None:
        was.append(self.is_private(manifest.id))
        add(self, manifest)

    monkeypatch.setattr(Catalog, "add", added)
    diachunk.publish([files], name="lab/a", private=True, home=home)
    assert was
    assert all(was)


def test_what_is_here_can_be_made_private_while_it_is_signed(files: Path, home: Path, keys: Keys) -> None:
    published = diachunk.publish([files], name="lab/a", home=home)
    assert not Store.open(home).catalog.is_private(published.manifest.id)
    diachunk.publish(["lab/a"], sign=keys.alice, private=True, home=home)
    assert Store.open(home).catalog.is_private(published.manifest.id)


def test_private_without_a_store_makes_no_sense(files: Path) -> None:
    with pytest.raises(UsageError, match="no-store"):
        diachunk.publish([files], name="lab/a", private=True, store=False)


# --- the command line --------------------------------------------------------------------------------------------


def test_the_verb_signs_and_show_says_who_did(files: Path, home: Path, keys: Keys) -> None:
    env = {"DIACHUNK_HOME": str(home)}
    done = run("publish", files, "--name", "lab/a", "--sign", keys.alice, "--private", **env)
    assert done.returncode == 0, done.stderr
    assert "signed on 20" in done.stderr
    assert "lab's secret" in done.stderr
    trusting = {**env, "DIACHUNK_ALLOWED_SIGNERS": str(keys.allowed)}
    assert "by alice@lab on 20" in run("show", "lab/a", **trusting).stdout
    assert "1 signature, unchecked" in run("show", "lab/a", **env).stdout
    said = json.loads(run("show", "lab/a", "--json", **trusting).stdout)
    assert (said["signed_by"], said["signatures"], said["private"]) == ("alice@lab", 1, True)


def test_a_passphrase_is_asked_for_on_the_terminal(files: Path, home: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", "-N", "open sesame")
    ours, theirs = pty.openpty()
    words = [*COMMAND, "publish", files, "--name", "lab/a", "--sign", key]
    env = {**os.environ, "DIACHUNK_HOME": str(home), "TERM": "xterm"}
    # A session whose terminal is this one, as a shell in a window has it.
    script = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    timer = threading.Timer(60, done.kill)
    timer.start()
    shown = b""
    try:
        while True:
            piece = os.read(ours, 4096)
            if b"passphrase" in piece:
                os.write(ours, b"open sesame\n")
            shown += piece
            if not piece:
                break
    except OSError:
        pass  # Linux: the other end is closed
    finally:
        os.close(ours)
        code = done.wait(60)
        timer.cancel()
    assert code == 0, shown.decode(errors="replace")
    assert b"signed on" in shown


# --- require_signed ----------------------------------------------------------------------------------------------


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    monkeypatch.setenv("DIACHUNK_REQUIRE_SIGNED", "true")
    monkeypatch.setenv("DIACHUNK_ALLOWED_SIGNERS", str(keys.allowed))


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("way", ["file", "url"])
def test_what_comes_from_outside_must_be_signed(
    files: Path, home: Path, keys: Keys, tmp_path: Path, way: str
) -> None:
    plain, good = tmp_path / "served" / "plain.json", tmp_path / "served" / "good.json"
    plain.parent.mkdir()
    diachunk.publish([files], name="lab/a", out=plain, store=False)
    diachunk.publish([files], name="lab/a", out=good, store=False, sign=keys.alice)
    with Nginx(plain.parent) as server:
        targets = [f"{server.url}/{each.name}" if way == "url" else str(each) for each in (plain, good)]
        for act in (diachunk.plan, diachunk.fetch):
            with pytest.raises(TrustError, match="require_signed") as caught:
                act(targets[0], origins=[str(files)], home=home)
            assert caught.value.exit_code == 7
            assert targets[0] in caught.value.message
        assert Store.open(home).catalog.ids() == [], "nothing of it is kept"
        snapshot = diachunk.fetch(targets[1], origins=[str(files)], home=home)
    assert snapshot.manifest.hex_id == diachunk.fetch(snapshot.manifest.hex_id, home=home).manifest.hex_id


@pytest.mark.usefixtures("strict")
def test_an_old_version_at_a_url_is_refused(files: Path, home: Path, keys: Keys, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    diachunk.publish([files], name="lab/a", out=served / "old.json", sign=keys.alice, home=tmp_path / "lab")
    (files / "model" / "a.bin").write_bytes(b"b" * 5000)
    new = diachunk.publish(
        [files], name="lab/a", out=served / "new.json", sign=keys.alice, force=True, home=tmp_path / "lab"
    )
    assert new.signature is not None
    with Nginx(served) as server:
        diachunk.fetch(f"{server.url}/new.json", origins=[str(files)], home=home)
        with pytest.raises(TrustError, match="older version, signed by alice@lab"):
            diachunk.fetch(f"{server.url}/old.json", origins=[str(files)], home=home)


@pytest.mark.usefixtures("strict")
def test_what_a_name_stands_for_here_stays_usable(files: Path, home: Path, tmp_path: Path) -> None:
    published = diachunk.publish([files], name="lab/a", home=home)
    out = tmp_path / "m.json"
    out.write_bytes(encode(published.manifest))
    assert diachunk.fetch("lab/a", home=home).manifest == published.manifest
    assert diachunk.fetch(out, home=home).manifest == published.manifest
