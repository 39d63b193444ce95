"""Lines that break, revisions that move, repositories not for everybody: a recipe's fetch, and what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.errors import DiachunkError, IntegrityError, ManifestError, TransferIncomplete, UsageError
from diachunk.store.store import Store
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from fixtures.checkpoints import blobs_of, tree
from fixtures.command_line import run
from fixtures.hub_world import (
    MODEL,
    VOCODER,
    assert_is,
    fetch_watched,
    hub_serving,
    left_in,
    model_files,
    noise,
    vocoder_files,
)
from fixtures.settings import QUICK, write_config

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


# --- a line that breaks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        faults.Close(1_500_000),
        faults.Reset(700_000),
        faults.StallAfter(500_000),
        faults.Status(500),
        faults.RetryAfter(1, 503),
        faults.Html(206),
        faults.WrongContentRange(),
        faults.Gzip(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_line_that_breaks_some_times_is_no_matter(
    hub: Hub, home: Path, base: Path, fault: faults.Fault
) -> None:
    write_config(base, {**QUICK, "patience_s": 8.0})
    hub.fail(Part.BYTES, fault, of="codec.bin", times=2, skip=1)
    if isinstance(fault, faults.Html | faults.WrongContentRange | faults.Gzip):
        # what is garbled says so (or the whole is wrong): that source is out, and the run after it goes on
        with pytest.raises((TransferIncomplete, IntegrityError)):
            diachunk.fetch(f"hub:{VOCODER}", home=home)
        nothing_of(home, *vocoder_files().values())
    assert_is(fetch_watched(f"hub:{VOCODER}", home), vocoder_files(), home)


@pytest.mark.parametrize("uses", [1, 2])
def test_links_that_expire_in_the_middle_are_made_anew(hub: Hub, home: Path, uses: int) -> None:
    hub.links_expire(after_requests=uses)
    assert_is(fetch_watched(f"hub:{VOCODER}", home), vocoder_files(), home)


def test_too_many_requests_wait_as_long_as_they_are_told(hub: Hub, home: Path, base: Path) -> None:
    write_config(base, {**QUICK, "patience_s": 8.0})
    hub.rate_limit(2, retry_after_s=1)
    hub.rate_limit(2, retry_after_s=1, part=Part.RESOLVE)
    hub.rate_limit(2, retry_after_s=1, part=Part.CDN)
    assert_is(fetch_watched(f"hub:{VOCODER}", home), vocoder_files(), home)


def test_a_hub_that_limits_for_long_is_told(hub: Hub, home: Path) -> None:
    hub.rate_limit(10_000, retry_after_s=600)
    error = fails(TransferIncomplete, f"hub:{VOCODER}", home)
    assert error.exit_code == 5
    assert "429" in error.message


def test_a_hub_without_ranges_is_read_once_from_its_start(hub: Hub, home: Path) -> None:
    hub.ignore_ranges()
    assert_is(fetch_watched(f"hub:{VOCODER}", home), vocoder_files(), home)
    assert hub.bytes_sent("codec.bin") <= 2.1 * len(CODEC)


def test_upstream_gone_for_good_says_so_and_the_next_run_fetches_the_rest(hub: Hub, home: Path) -> None:
    hub.fail(Part.CDN, faults.Status(500), skip=3)
    error = fails(TransferIncomplete, f"hub:{VOCODER}", home)
    assert "codec.bin" in error.message
    assert VOCODER in error.message
    nothing_of(home, *vocoder_files().values())
    hub.rules.clear()
    before = hub.bytes_sent("codec.bin")
    assert 0 < before < len(CODEC)
    assert_is(fetch_watched(f"hub:{VOCODER}", home), vocoder_files(), home)
    assert hub.bytes_sent("codec.bin") <= len(CODEC) + 100_000, "nothing twice"


# --- a revision that moves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_branch_that_moves_while_it_is_fetched_yields_one_commit(hub: Hub, home: Path, after: int) -> None:
    old = hub.add(VOCODER, vocoder_files())
    changed = {"config.json": b"new", "codec.bin": noise("other", 100_000)}
    new = hub.add(VOCODER, changed, revision="next")
    hub.move(VOCODER, to=new, after_requests=after)
    snapshot = diachunk.fetch(f"hub:{VOCODER}", home=home)
    commit = snapshot.manifest.components[0].upstream["commit"]
    assert_is(snapshot, {old: dict(vocoder_files()), new: changed}[str(commit)], home)


def test_after_a_branch_moved_the_new_one_is_fetched_and_the_old_one_stays(hub: Hub, home: Path) -> None:
    first = fetch_watched(f"hub:{VOCODER}", home)
    hub.add(VOCODER, {**vocoder_files(), "config.json": b"second"})
    before = hub.bytes_sent("codec.bin")
    second = fetch_watched(f"hub:{VOCODER}", home)
    assert second.path("config.json").read_bytes() == b"second"
    assert hub.bytes_sent("codec.bin") == before
    hub.close()
    old = diachunk.fetch(first.manifest.hex_id, home=home)
    assert old.path("config.json").read_bytes() == vocoder_files()["config.json"]


def test_a_commit_answered_by_another_is_refused(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "1" * 40
    commit = hub._repositories.find(VOCODER, "main")
    monkeypatch.setattr("diachunk.testing.hub_state.Repositories.find", lambda *_: commit)
    error = fails(ManifestError, f"hub:{VOCODER}@{asked}", home)
    assert asked in error.message


# --- who may, and what is not there ----------------------------------------------------------------------------


def test_a_renamed_repository_is_followed(hub: Hub, home: Path) -> None:
    hub.renamed["lab/old-name"] = VOCODER
    snapshot = diachunk.fetch("hub:lab/old-name", home=home)
    assert_is(snapshot, vocoder_files(), home)


def test_a_gated_repository_says_where_to_ask(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(VOCODER)
    hub.granted.add(TOKEN)
    error = fails(TransferIncomplete, f"hub:{VOCODER}", home)
    assert "gated" in str(error) or "access" in str(error)
    assert "netrc" not in str(error)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert fails(TransferIncomplete, f"hub:{VOCODER}", home).exit_code == 5
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_is(diachunk.fetch(f"hub:{VOCODER}", home=home), vocoder_files(), home)


@pytest.mark.parametrize("status", [401, 404])
def test_missing_and_private_repositories_are_told(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, status: Any
) -> None:
    hub.missing_status = status
    error = fails(UsageError, "hub:lab/nowhere", home)
    assert "lab/nowhere" in error.message
    hub.private[VOCODER] = TOKEN
    error = fails(UsageError, f"hub:{VOCODER}", home)
    assert "private" in error.message
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    snapshot = diachunk.fetch(f"hub:{VOCODER}", home=home)
    assert_is(snapshot, vocoder_files(), home)


def test_a_missing_revision_and_a_missing_file_are_told(hub: Hub, home: Path, tmp_path: Path) -> None:
    assert "no revision 'v9'" in fails(UsageError, f"hub:{VOCODER}@v9", home).message
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'name = "r"\n[[component]]\nhub = "{VOCODER}"\nfiles = ["config.json", "gone.bin"]\n')
    assert "gone.bin" in fails(UsageError, recipe, home).message


def test_the_token_reaches_the_endpoint_alone_and_no_output(hub: Hub, home: Path, tmp_path: Path) -> None:
    hub.private[VOCODER] = TOKEN
    mirror = tree(tmp_path / "mirror", {})
    recipe = tmp_path / "codec.toml"
    with BadServer(mirror) as elsewhere:
        recipe.write_text(
            f'name = "r"\n[[component]]\nname = "a"\nhub = "{VOCODER}"\nmirrors = ["{elsewhere.url}"]\n'
        )
        done = run("fetch", recipe, "-v", DIACHUNK_HOME=str(home), HF_TOKEN=TOKEN)
        assert {each.request.headers.get("authorization") for each in elsewhere.exchanges} <= {None}
    assert done.returncode == 0, done.stderr
    asked = [each for each in hub.requests if VOCODER in each.path]  # the library asks for more, without one
    assert asked
    assert {each.had_authorization for each in asked if each.status < 400} == {True}
    assert {each.had_authorization for each in hub.requests if each.server == "cdn"} == {False}
    hub.fail(Part.API, faults.Status(500))
    failed = run("fetch", f"hub:{VOCODER}", "-v", DIACHUNK_HOME=str(home / "2"), HF_TOKEN=TOKEN)
    for each in (done, failed):
        assert TOKEN not in each.stdout + each.stderr
    assert not [path for path in home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize("token", ["hf_two\nlines-of-s3cret", "hf_s3cret with a space", "hf_s3cret\x1b[31m"])
def test_a_token_that_is_none_is_refused_and_not_shown(hub: Hub, home: Path, token: str) -> None:
    done = run("fetch", f"hub:{VOCODER}", "-v", DIACHUNK_HOME=str(home), HF_TOKEN=token)
    assert done.returncode == 2
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "endpoint",
    [
        "hub.test",
        "ftp://hub.test",
        "http://",
        "http://[::1",
        "http://u:s3cret@hub.test",
        "https://h/?t=s3cret",
        "http://hub.test/\x1b[2J",
        "file:///etc",
    ],
)
def test_an_endpoint_that_is_no_url_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    error = fails(UsageError, f"hub:{VOCODER}", home)
    assert "HF_ENDPOINT" in error.message
    assert "s3cret" not in str(error)


def test_an_endpoint_that_hangs_ends_in_time(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diachunk.sources.hub._ANSWER_S", 0.5)
    hub.hang(Part.API)
    error = fails(TransferIncomplete, f"hub:{VOCODER}", home)
    assert "no answer" in error.message
    assert VOCODER in error.message


def test_without_the_library_the_command_that_installs_it_is_told(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    error = fails(UsageError, f"hub:{VOCODER}", home)
    assert "pip install 'diachunk[hub]'" in error.hint


def test_a_manifest_of_a_repository_is_fetched_without_the_library(
    hub: Hub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = diachunk.publish([f"hub:{VOCODER}"], home=tmp_path / "other", out=tmp_path / "m.json")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert made.file is not None
    assert_is(fetch_watched(made.file, home), vocoder_files(), home)


def test_models_of_every_kind_survive_a_bad_day(
    monkeypatch: pytest.MonkeyPatch, home: Path, base: Path
) -> None:
    write_config(base, {**QUICK, "patience_s": 8.0})
    with hub_serving(monkeypatch, {MODEL: model_files()}) as hub:
        hub.cut_off("*", after_bytes=300_000, times=6)
        hub.rate_limit(3, retry_after_s=1, part=Part.BYTES)
        hub.links_expire(after_requests=3)
        assert_is(fetch_watched(f"hub:{MODEL}", home), model_files(), home)
