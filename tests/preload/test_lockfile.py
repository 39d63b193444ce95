"""The text of a lock: what is written is read, the same set gives the same bytes, and nothing else is a lock."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diachunk.api.sets.lockfile import Entry, Upstream, format_lock, parse_lock, read_lock, write_lock
from diachunk.digest import digest_of
from diachunk.errors import DiachunkError, StoreError, TrustError, UsageError
from diachunk.manifest import Manifest, build
from diachunk.manifest.model import ChunkList, Component, FileEntry

ID = bytes(range(32))
COMMIT = "ef2795fcc29c5abe6ffc91fd33808588b49bbc66"
HUB = Upstream("model", "hub", (("repository", "nari-labs/Dia-1.6B-0626"), ("commit", COMMIT)))
URL = Upstream("vocoder", "url", (("url", "https://h.org/weights.pth"),))
DIA = Entry("dia-1.6b", "dia-1.6b", "main", ID, 6_751_435_119, 12, (HUB, URL))

GOLDEN = f"""\
# Which weights this project runs with. Written by `diachunk fetch`, restored by `diachunk fetch --locked`.
# Keep it with the code; `diachunk fetch --update` renews it.
lock = 1

[[checkpoint]]
target = "dia-1.6b"
name = "dia-1.6b"
revision = "main"
id = "{ID.hex()}"
total_bytes = 6751435119
files = 12

  [[checkpoint.upstream]]
  component = "model"
  kind = "hub"
  repository = "nari-labs/Dia-1.6B-0626"
  commit = "{COMMIT}"

  [[checkpoint.upstream]]
  component = "vocoder"
  kind = "url"
  url = "https://h.org/weights.pth"
"""


def manifest(*upstreams: Upstream) -> Manifest:
    empty = FileEntry("config.json", 0, digest_of(b""), ChunkList.of(()))
    components = [
        Component(each.component, (empty,), {"kind": each.kind, **dict(each.facts)}) for each in upstreams
    ]
    return build("lab/dia", "main", components)


def test_the_text_is_what_it_was() -> None:
    assert format_lock([DIA]) == GOLDEN
    assert parse_lock(GOLDEN, "x") == {"dia-1.6b": DIA}


def test_what_a_manifest_says_of_its_upstreams_is_told() -> None:
    found = Entry.of("t", manifest(HUB, URL))
    assert found.upstreams == (HUB, URL)
    assert Entry.of("t", manifest(Upstream("m", "ipfs", (("cid", "x"),)))).upstreams == ()


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
upstreams = st.builds(
    lambda component, url: Upstream(component, "url", (("url", url),)), names, words
) | st.builds(
    lambda component, repository, commit: Upstream(
        component, "hub", (("repository", repository), ("commit", commit))
    ),
    names,
    words,
    words,
)
entries = st.builds(
    Entry,
    words,
    names,
    names,
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**53 - 1),
    st.integers(0, 2**53 - 1),
    st.lists(upstreams, max_size=3).map(tuple),
)


@given(st.lists(entries, max_size=4, unique_by=lambda each: each.target), st.randoms())
def test_what_is_written_is_read_and_the_order_does_not_matter(found: list[Entry], random: object) -> None:
    text = format_lock(found)
    assert parse_lock(text, "x") == {each.target: each for each in found}
    assert format_lock(reversed(found)) == text
    text.encode()


@given(
    st.text(max_size=200)
    | st.builds(
        lambda cut, new: GOLDEN[:cut] + new + GOLDEN[cut + 1 :],
        st.integers(0, len(GOLDEN)),
        st.text(max_size=3),
    )
)
def test_any_text_is_a_lock_or_refused_in_one_line(text: str) -> None:
    told = ""
    try:
        parse_lock(text, "x")
    except UsageError as error:
        told = str(error)
    assert not told or (told.startswith("x: ") and "\n" not in told and len(told) < 1000)


def changed(old: str, new: str) -> str:
    assert old in GOLDEN
    return GOLDEN.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a lock file"),
        ("lock = 2", "made by a newer diachunk (lock format 2)"),
        ("lock = true", "not a lock file"),
        ("lock = 0", "not a lock file"),
        ("lock = 1\nlocks = 1", "no such key: 'locks'"),
        ("lock = 1\ncheckpoint = 5", "an array of tables"),
        ("lock = 1\n[[checkpoint]]", "checkpoint 1: name: a string"),
        (GOLDEN + GOLDEN.partition("lock = 1\n")[2], "checkpoint 2: 'dia-1.6b' is there twice"),
        (changed(ID.hex(), ID.hex().upper()), "id: 64 lower-case hex digits"),
        (changed(ID.hex(), ID.hex()[:-1]), "id: 64 lower-case hex digits"),
        (changed(f'"{ID.hex()}"', "7"), "id: 64 lower-case hex digits"),
        (changed("6751435119", "-1"), "total_bytes: a whole number"),
        (changed("6751435119", "true"), "total_bytes: a whole number"),
        (changed("6751435119", "1e3"), "total_bytes: a whole number"),
        (changed("files = 12", "files = 9007199254740992"), "files: a whole number"),
        (changed("files = 12", "files = 12\nsize = 1"), "no such key: 'size'"),
        (changed('name = "dia-1.6b"', 'name = "../../x"'), "not a name and a revision"),
        (changed('revision = "main"', 'revision = "a/b"'), "not a name and a revision"),
        (changed('target = "dia-1.6b"', 'target = ""'), "target: a string"),
        (changed('target = "dia-1.6b"', f'target = "{"x" * 5000}"'), "target: a string"),
        (changed('kind = "hub"', 'kind = "ftp"'), "'ftp' of 'model': no such kind"),
        (changed('commit = "', 'commits = "'), "no such key: 'commits'"),
        (changed(f'commit = "{COMMIT}"', ""), "commit: a string"),
        ("<<<<<<< HEAD\n" + GOLDEN, "not TOML"),
        ("a" + ".a" * 30_000 + " = 1", "a key of more than 8 parts"),
        ("x = " + "[" * 5000, "not TOML"),
    ],
)  # fmt: skip
def test_what_is_no_lock_is_named_with_the_entry(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_lock(text, "x.lock")
    assert caught.value.message.startswith("x.lock: ")
    assert words in caught.value.message
    assert caught.value.hint
    assert len(str(caught.value)) < 1000


def test_a_lock_that_would_not_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "diachunk.lock").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="over 1,048,576 bytes"):
        read_lock(tmp_path / "diachunk.lock")


def test_another_manifest_is_told_with_both_ids() -> None:
    found = manifest(HUB)
    Entry.of("t", found).check(found)
    with pytest.raises(TrustError) as caught:
        DIA.check(found)
    assert ID.hex() in caught.value.message
    assert found.hex_id in caught.value.message


def test_a_lock_that_contradicts_its_own_id_was_tampered_with() -> None:
    found = manifest(HUB)
    good = Entry.of("t", found)
    for changed_key, entry in {
        "name": replace(good, name="lab/other"),
        "revision": replace(good, revision="v2"),
        "total_bytes": replace(good, total_bytes=7),
        "files": replace(good, files=7),
    }.items():
        with pytest.raises(TrustError, match=f"the lock says {changed_key}"):
            entry.check(found)


def test_a_recipe_from_elsewhere_is_told_before_it_is_fetched() -> None:
    stated = {"model": {"kind": "hub", **dict(HUB.facts)}, "vocoder": {"kind": "url", **dict(URL.facts)}}
    DIA.check_upstreams(stated)
    with pytest.raises(TrustError, match=f"of commit {COMMIT}, but model comes from commit {'0' * 40} now"):
        DIA.check_upstreams({**stated, "model": {**stated["model"], "commit": "0" * 40}})
    with pytest.raises(TrustError, match="vocoder comes from url nowhere"):
        DIA.check_upstreams({"model": stated["model"]})


def test_a_whole_repository_can_be_had_by_its_commit() -> None:
    whole = Upstream("", "hub", HUB.facts)
    target = "hub:nari-labs/Dia-1.6B-0626"
    for text in (target, f"{target}@main"):
        assert Entry(text, "x", "y", ID, 1, 1, (whole,)).hub_target == f"{target}@{COMMIT}"
    assert Entry("hub:other/repo", "x", "y", ID, 1, 1, (whole,)).hub_target == ""
    assert DIA.hub_target == ""


def test_writing_takes_the_mode_of_the_directory_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "project" / "diachunk.lock"
    path.parent.mkdir()
    path.parent.chmod(0o770)
    write_lock(path, [DIA])
    assert path.read_text() == GOLDEN
    assert path.stat().st_mode & 0o777 == 0o660
    assert os.listdir(path.parent) == ["diachunk.lock"]


def test_the_same_again_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "diachunk.lock"
    write_lock(path, [DIA])
    before = path.stat()
    write_lock(path, [DIA])
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    path = tmp_path / "diachunk.lock"
    path.symlink_to(theirs)
    write_lock(path, [DIA])
    assert theirs.read_text() == "precious"
    assert not path.is_symlink()


def test_a_directory_in_its_place_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "diachunk.lock"
    path.mkdir()
    with pytest.raises(StoreError, match="in the way"):
        write_lock(path, [DIA])
    assert path.is_dir()
    with pytest.raises(DiachunkError, match="cannot read"):
        read_lock(path)
