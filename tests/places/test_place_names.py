"""Where the caches of a user lie, and what names in them mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from diachunk.errors import UsageError
from diachunk.places import cache_of, caches
from diachunk.places.hub_names import (
    algorithm_of,
    cache_directory,
    directory_of,
    is_commit,
    is_repository,
    repository_of,
)
from fixtures.programs import HUB_2, run, said

ENVIRONMENTS: list[Mapping[str, str]] = [
    {},
    {"HF_HOME": "/a/b"},
    {"HF_HOME": "~/b"},
    {"HF_HOME": "$HOME/b/${NOPE}"},
    {"XDG_CACHE_HOME": "/x"},
    {"XDG_CACHE_HOME": "/x", "HF_HOME": "/a"},
    {"HF_HUB_CACHE": "/h", "HF_HOME": "/a"},
    {"HF_HUB_CACHE": "~/h"},
    {"HUGGINGFACE_HUB_CACHE": "/old"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "${X}/new", "X": "/y"},
    {"HF_HOME": "", "X": "1"},
    {"HF_HUB_CACHE": "relative"},
    {"XDG_CACHE_HOME": ""},
]


_ASK = """
import json, os, subprocess, sys
code = "import os, huggingface_hub.constants as c; print(os.path.abspath(c.HF_HUB_CACHE))"
for each in json.loads(os.environ["CASES"]):
    own = {"HOME": os.environ["HOME"], **each}
    print(subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True).stdout.strip())
"""


@pytest.mark.timeout(600)
def test_the_hub_cache_is_where_the_real_library_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = said(run(HUB_2, _ASK, tmp_path, CASES=json.dumps(ENVIRONMENTS)))
    monkeypatch.chdir(tmp_path)
    for environment, theirs in zip(ENVIRONMENTS, told.splitlines(), strict=True):
        assert cache_directory({"HOME": str(tmp_path), **environment}) == theirs, environment


def test_the_caches_that_no_variable_moves(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": "/elsewhere"}
    roots = {each.kind: each.root for each in caches(environment)}
    assert roots == {
        "hub": Path("/elsewhere/huggingface/hub"),
        "descript": tmp_path / ".cache" / "descript" / "dac",
        "dia": tmp_path / ".cache" / "dia",
    }


def test_a_place_is_a_kind_or_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"HOME": str(tmp_path)}
    assert cache_of("hub", environment).kind == "hub"
    assert cache_of("./hub", environment).root == tmp_path / "hub"
    assert cache_of(Path("hub"), environment).kind == "directory"
    for wrong in ("", "a\0b"):
        with pytest.raises(UsageError, match="not a directory name"):
            cache_of(wrong, environment)


@pytest.mark.parametrize("name", ["gpt2", "org/name", "nari-labs/Dia-1.6B-0626", "a_b/c.d-e", "A/b"])
def test_repositories_have_a_directory_and_come_back_from_it(name: str) -> None:
    assert is_repository(name)
    assert repository_of(directory_of(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "a--b",
        "a..b",
        "..",
        "../x",
        "a/..",
        "-a",
        "a-",
        ".a",
        "a.",
        "a b",
        "a\n",
        "ä",
        "a" * 97,
        "x.git",
        5,
        None,
    ],
)
def test_what_no_hub_has_is_no_repository(name: object) -> None:
    assert not is_repository(name)


def test_directories_of_other_things_are_no_repositories() -> None:
    assert repository_of("datasets--a--b") == "datasets/a/b"
    for name in ("blobs", ".locks", "CACHEDIR.TAG", "models--", "version.txt", "models-a"):
        assert repository_of(name) == "", name


def test_a_blob_is_named_by_sha256_or_git_or_something_else() -> None:
    assert algorithm_of("a" * 64) == "sha256"
    assert algorithm_of("a" * 40) == "git"
    for name in ("A" * 40, "a" * 41, f"{'a' * 40}-2", "", "g" * 64, "a" * 64 + "\n"):
        assert algorithm_of(name) == "", name
    assert is_commit("0" * 40)
    assert not is_commit("0" * 40 + "\n")
