"""What took the user's credentials is private, from before its first byte; what did not is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.digest import Digest
from diachunk.errors import StoreError, TransferIncomplete
from diachunk.manifest import Manifest, decode, encode
from diachunk.store.catalog import Catalog
from diachunk.store.marks import Marks
from diachunk.store.store import Store
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Fault, Unauthorized
from diachunk.testing.hub import Hub
from diachunk.testing.reply import Request
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, published, tree
from fixtures.hub_world import hub_serving, noise, url_recipe

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

REPOSITORY = "lab/small"
FILES = {"config.json": b"{}\n", "weights.bin": noise("private", 300_000)}
LOGIN = ("ada", "s3cret-word")
TOKEN = "hf_s3cret"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(monkeypatch, {REPOSITORY: FILES}) as serving:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield serving


@pytest.fixture
def netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    file.write_text(f"machine 127.0.0.1 login {LOGIN[0]} password {LOGIN[1]}\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))


@pytest.fixture
def tiny(tmp_path: Path) -> Checkpoint:
    return published(tree(tmp_path / "tiny", {f"model/{name}": data for name, data in FILES.items()}))


def is_private(home: Path, snapshot: diachunk.Snapshot) -> bool:
    return Store.open(home).catalog.is_private(snapshot.manifest.id)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which came first: the mark, or the manifest that others might be given."""
    seen: list[str] = []
    mark, add = Marks.mark_private, Catalog.add

    def marked(self: Marks, manifest_id: Digest) -> None:
        seen.append(f"mark {manifest_id.hex()}")
        mark(self, manifest_id)

    def added(self: Catalog, manifest: Manifest) -> None:
        seen.append(f"add {manifest.hex_id}")
        add(self, manifest)

    monkeypatch.setattr(Marks, "mark_private", marked)
    monkeypatch.setattr(Catalog, "add", added)
    return seen


# --- the Hub -------------------------------------------------------------------------------------------------


def test_a_login_that_nobody_asked_for_is_not_sent_and_makes_nothing_private(hub: Hub, home: Path) -> None:
    snapshot = diachunk.fetch(f"hub:{REPOSITORY}", home=home)
    assert not is_private(home, snapshot)
    assert not any(each.had_authorization for each in hub.requests if "/resolve/" in each.path)


@pytest.mark.parametrize("closed", ["private", "gated"])
def test_a_repository_that_wants_the_token_is_private_before_its_manifest_is_there(
    hub: Hub, home: Path, closed: str, order: list[str]
) -> None:
    if closed == "private":
        hub.private[REPOSITORY] = TOKEN
    else:
        hub.gated.add(REPOSITORY)
        hub.granted.add(TOKEN)
    snapshot = diachunk.fetch(f"hub:{REPOSITORY}", home=home)
    assert is_private(home, snapshot)
    manifest_id = snapshot.manifest.hex_id
    assert order.index(f"mark {manifest_id}") < order.index(f"add {manifest_id}")
    marks = Store.open(home).catalog.private_ids()
    assert marks == {snapshot.manifest.id}, "the marks of its files have done their work"


def test_by_its_manifest_too_though_the_manifest_hides_that_it_took_a_token(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    hub.private[REPOSITORY] = TOKEN
    made = diachunk.fetch(f"hub:{REPOSITORY}", home=tmp_path / "elsewhere").manifest
    stripped = decode(encode(made).replace(b'"access": "credential"', b'"access": "for everybody"'))
    (tmp_path / "m.json").write_bytes(encode(stripped))
    snapshot = diachunk.fetch(tmp_path / "m.json", home=home)
    assert snapshot.report.fetched_bytes > 0
    assert is_private(home, snapshot)


# --- servers with a login ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("netrc")
def test_an_origin_that_takes_a_login_makes_it_private_before_the_first_byte(
    home: Path, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_private: list[bool] = []
    done = threading.Event()

    def watch(event: object) -> None:
        if isinstance(event, diachunk.Progress) and not done.is_set():
            done.set()
            was_private.append(Store.open(home).catalog.is_private(tiny.manifest.id))

    with Nginx(tiny.root, basic_auth=LOGIN) as origin:
        diachunk.fetch(tiny.target, origins=[origin.url], home=home, progress=watch)
    assert was_private == [True]


@pytest.mark.usefixtures("netrc")
def test_what_cannot_be_marked_is_not_fetched(
    home: Path, tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Marks, manifest_id: Digest) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(Marks, "mark_private", refuse)
    with Nginx(tiny.root, basic_auth=LOGIN) as origin:
        with pytest.raises(TransferIncomplete, match="no space left"):
            diachunk.fetch(tiny.target, origins=[origin.url], home=home)
        assert not list((home / "blobs").glob("??/*"))


def test_an_origin_without_a_login_makes_nothing_private(home: Path, tiny: Checkpoint) -> None:
    with Nginx(tiny.root) as origin:
        snapshot = diachunk.fetch(tiny.target, origins=[origin.url], home=home)
    assert not is_private(home, snapshot)


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("closed", [True, False])
def test_a_recipe_is_private_where_its_server_refuses_strangers(
    home: Path, tmp_path: Path, closed: bool
) -> None:
    root = tree(tmp_path / "files", FILES)
    with Nginx(root, basic_auth=LOGIN if closed else None) as server:
        recipe = url_recipe(tmp_path / "r.toml", server.url, FILES)
        snapshot = diachunk.fetch(recipe, home=home)
        assert is_private(home, snapshot) is closed
        if not closed:
            assert {each.authorization for each in server.requests()} == {""}


@pytest.mark.usefixtures("netrc")
def test_a_recipe_that_was_stopped_is_private_though_the_rest_took_no_login(
    home: Path, tmp_path: Path
) -> None:
    root = tree(tmp_path / "files", FILES)
    with BadServer(root) as server:

        def first_run(request: Request, number: int) -> Fault | None:
            wants_login = "authorization" not in request.headers or "weights" in request.path
            return Unauthorized() if wants_login else None

        server.script = first_run
        recipe = url_recipe(tmp_path / "r.toml", server.url, FILES)
        with pytest.raises(TransferIncomplete):
            diachunk.fetch(recipe, home=home)
        server.script = None
        snapshot = diachunk.fetch(recipe, home=home)
    assert is_private(home, snapshot)


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("closed", [True, False])
def test_a_manifest_that_took_a_login_is_of_something_private(
    home: Path, tiny: Checkpoint, closed: bool, tmp_path: Path
) -> None:
    with (
        Nginx(tiny.root.parent, basic_auth=LOGIN if closed else None) as server,
        Nginx(tiny.root, basic_auth=None) as files,
    ):
        monkey = f"{files.url}".replace("127.0.0.1", "localhost")  # which the netrc does not name
        snapshot = diachunk.fetch(f"{server.url}/tiny.json", origins=[monkey], home=home)
    assert is_private(home, snapshot) is closed
