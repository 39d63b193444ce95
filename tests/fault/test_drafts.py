"""What upstream can do to a recipe's fetch: the digest that is stated decides, and what it says is said in one line."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.digest import digest_of
from diachunk.errors import DiachunkError, IntegrityError, TransferIncomplete
from diachunk.store.stamps import read_stamp
from diachunk.store.store import Store
from diachunk.testing import faults
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import blobs_of, tree
from fixtures.command_line import run
from fixtures.hub_world import (
    VOCODER,
    assert_is,
    fetch_watched,
    hub_serving,
    in_parts,
    left_in,
    noise,
    url_recipe,
    vocoder_files,
)
from fixtures.users import one_line
from fixtures.watch import Told

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

CODEC = vocoder_files()["codec.bin"]
TOKEN = "hf_" + "s3cretTokenOfTheUser"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(monkeypatch, {VOCODER: vocoder_files()}) as serving:
        yield serving


def nothing_of(home: Path, *right: bytes) -> None:
    """No manifest, no name, no blob but of these bytes, nothing that a later run would take for right."""
    store = Store.open(home)
    assert list(store.catalog.manifests()) == []
    assert store.catalog.refs() == []
    assert left_in(home / "recipes") == []
    allowed = {hashlib.sha256(each).hexdigest() for each in right}
    assert {hashlib.sha256(each.read_bytes()).hexdigest() for each in blobs_of(home)} <= allowed


def fails(kind: type[DiachunkError], target: str | Path, home: Path, **options: Any) -> DiachunkError:
    with pytest.raises(kind) as caught:
        diachunk.fetch(target, home=home, **options)
    assert str(caught.value).isprintable()
    return caught.value


# --- the digest that is stated decides ------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "digest"), [("codec.bin", "0" * 64), ("config.json", "0" * 40)])
def test_a_digest_that_no_bytes_have_is_told_with_both_and_its_source(
    hub: Hub, home: Path, file: str, digest: str
) -> None:
    hub.misstate(VOCODER, file, etag=digest)
    done = run("fetch", f"hub:{VOCODER}", DIACHUNK_HOME=str(home))
    assert done.returncode == 4
    said = done.stderr[done.stderr.index("diachunk: ") :]
    assert one_line(said), said
    true = hashlib.sha256(CODEC).hexdigest()
    if file == "config.json":
        with Hub() as honest:
            honest.add(VOCODER, vocoder_files())
            true = honest.file(VOCODER, file).git_id
    for word in (file, digest, true, hub.url.removeprefix("http://"), VOCODER):
        assert word in said
    nothing_of(home, *vocoder_files().values())
    assert CODEC not in [each.read_bytes() for each in blobs_of(home)] or file != "codec.bin"


def test_wrong_bytes_under_the_right_digest_never_become_a_blob(hub: Hub, home: Path) -> None:
    hub.damage("codec.bin", at_byte=9_000_000)
    error = fails(IntegrityError, f"hub:{VOCODER}", home)
    assert error.exit_code == 4
    assert hashlib.sha256(CODEC).hexdigest() in error.message
    nothing_of(home, *vocoder_files().values())
    hub.rules.clear()
    assert_is(diachunk.fetch(f"hub:{VOCODER}", home=home), vocoder_files(), home)


def test_one_source_is_not_asked_twice_for_a_whole_that_it_gave_wrong(hub: Hub, home: Path) -> None:
    hub.damage("codec.bin", at_byte=9_000_000)
    fails(IntegrityError, f"hub:{VOCODER}", home)
    assert hub.bytes_sent("codec.bin") <= 1.1 * len(CODEC)


def test_another_size_than_stated_is_noticed_before_the_whole_is_there(hub: Hub, home: Path) -> None:
    hub.misstate(VOCODER, "codec.bin", size_bytes=len(CODEC) + 5_000_000)
    error = fails(TransferIncomplete, f"hub:{VOCODER}", home)
    assert f"{len(CODEC):,}" in error.message
    nothing_of(home, *vocoder_files().values())


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Makes origins of some files each."""
    running: list[Nginx] = []

    def serve(files: dict[str, bytes]) -> str:
        root = tree(tmp_path / f"mirror-{len(running)}", files or {"none": b""})
        running.append(Nginx(root).__enter__())
        return running[-1].url

    yield serve
    for each in running:
        each.__exit__(None, None, None)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


FILES = {"codec.bin": CODEC, "config.json": b"{}"}
WRONG = {**FILES, "codec.bin": bytes(each ^ 0xFF for each in CODEC)}


@pytest.mark.parametrize("wrong_first", [True, False])
def test_the_right_one_of_two_mirrors_wins_and_what_happened_is_told(
    mirrors: Callable[..., str], home: Path, tmp_path: Path, wrong_first: bool
) -> None:
    urls = [mirrors(WRONG), mirrors(FILES)]
    urls = urls if wrong_first else urls[::-1]
    recipe = url_recipe(tmp_path / "codec.toml", urls[0], FILES, mirrors=[f"{urls[1]}/{{path}}"])
    told = Told()
    plan = diachunk.plan(recipe, home=home)
    snapshot = diachunk.fetch(recipe, home=home, progress=told)
    assert_is(snapshot, in_parts(codec=FILES), home)
    assert told.total_bytes == plan.total_bytes
    assert len(told.files_done) == len(set(told.files_done)) == 2
    notices = [str(event) for event in told.events if "not what was stated" in str(event)]
    assert notices
    assert "codec.bin" in notices[0]
    assert "alone" in notices[0]


def test_a_dead_mirror_does_not_hide_the_right_one_behind_it(
    mirrors: Callable[..., str], home: Path, tmp_path: Path
) -> None:
    wrong, without, right = mirrors(WRONG), mirrors({}), mirrors(FILES)
    recipe = url_recipe(tmp_path / "codec.toml", wrong, FILES, mirrors=[without, right])
    assert_is(fetch_watched(recipe, home), in_parts(codec=FILES), home)


def test_where_each_is_wrong_or_dead_both_are_named(
    mirrors: Callable[..., str], home: Path, tmp_path: Path
) -> None:
    wrong, without = mirrors(WRONG), mirrors({})
    recipe = url_recipe(tmp_path / "codec.toml", wrong, FILES, mirrors=[without])
    error = fails(IntegrityError, recipe, home)
    wrong_hash = hashlib.sha256(WRONG["codec.bin"]).hexdigest()
    for word in (wrong.removeprefix("http://"), without.removeprefix("http://"), wrong_hash, "404"):
        assert word in error.message
    nothing_of(home, *FILES.values())


@pytest.mark.parametrize("wrong_first", [True, False])
def test_a_mirror_that_is_wrong_about_many_files_is_found_out(
    mirrors: Callable[..., str], home: Path, tmp_path: Path, wrong_first: bool
) -> None:
    """As a mirror of an older revision is: same names, same sizes, other bytes."""
    right = {f"{number}.bin": noise(f"right {number}", 2_000) for number in range(150)}
    wrong = {name: noise(f"wrong {name}", 2_000) for name in right}
    urls = [mirrors(wrong), mirrors(right)]
    urls = urls if wrong_first else urls[::-1]
    recipe = url_recipe(tmp_path / "many.toml", urls[0], right, mirrors=[urls[1]])
    assert_is(fetch_watched(recipe, home), in_parts(codec=right), home)


def test_what_an_earlier_run_got_wrong_convicts_no_one_now(hub: Hub, home: Path) -> None:
    """The pieces that lie here came from a line that was bad then."""
    hub.damage("codec.bin", at_byte=100)
    hub.fail(Part.BYTES, faults.Status(404), of="codec.bin", skip=3)
    fails(TransferIncomplete, f"hub:{VOCODER}", home)
    assert [each for each in left_in(home / "drafts") if each.endswith(".partial")]
    hub.rules.clear()
    assert_is(fetch_watched(f"hub:{VOCODER}", home), vocoder_files(), home)


# --- what is in the way ----------------------------------------------------------------------------------------


def test_a_damaged_blob_where_the_right_one_belongs_is_no_dead_end(hub: Hub, home: Path) -> None:
    """No manifest knows it any more, so nothing can repair it but what comes now."""
    snapshot = diachunk.fetch(f"hub:{VOCODER}", home=home)
    blob = (snapshot.directory / "codec.bin").resolve()
    data = bytearray(CODEC)
    data[7_000_000] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    for path in [*home.glob("manifests/*"), *home.glob("recipes/*"), *home.glob("pins/*")]:
        path.unlink()
    shutil.rmtree(home / "snapshots")
    (home / "snapshots").mkdir()
    again = diachunk.fetch(f"hub:{VOCODER}", home=home)
    assert again.path("codec.bin").read_bytes() == CODEC


def test_a_blob_that_came_meanwhile_keeps_the_names_that_were_computed(hub: Hub, home: Path) -> None:
    """Stated by a git id, and here already by the time it is complete."""
    hub.add("lab/as-git", {"codec.dat": CODEC}, lfs=())
    store = Store.open(home)
    digest = digest_of(CODEC)

    def arrive(event: diachunk.Event) -> None:
        blob = store.layout.blob(digest)
        if isinstance(event, diachunk.Progress) and not blob.exists():
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(CODEC)

    diachunk.fetch("hub:lab/as-git", home=home, progress=arrive)
    stamp = read_stamp(store.layout.stamp(digest))
    assert stamp is not None
    assert stamp.git == hub.file("lab/as-git", "codec.dat").git_id
    assert stamp.sha256 == hashlib.sha256(CODEC).hexdigest()
