"""Who is told of what is drawn here, and what of it that is here already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.api.drafting import Knowledge
from diachunk.api.drawing_together import swarm_of
from diachunk.api.recipes import read_recipe, state
from diachunk.api.sharing import Sharing, Sociable
from diachunk.config import load_config
from diachunk.digest import Digest
from diachunk.manifest.stated import StatedCheckpoint
from diachunk.manifest.statement import Statement
from fixtures.checkpoints import tree
from fixtures.hub_world import noise, url_component, url_recipe
from fixtures.settings import write_config

ONE = {"a.bin": noise("a", 5000)}
TWO = {**ONE, "b.bin": noise("b", 700)}


class Asked:
    """In place of a node: what it was asked to join, with what that is here."""

    def __init__(self) -> None:
        self.joined: list[tuple[Statement, Mapping[Digest, Path]]] = []
        self.speaks_through = None

    def join(self, statement: Statement, here: Mapping[Digest, Path]) -> Any:
        self.joined.append((statement, here))
        return self


@pytest.fixture
def stated(tmp_path: Path, home: Path) -> StatedCheckpoint:
    """Of two files, of which one is here: it came with another recipe."""
    root = tree(tmp_path / "origin" / "codec", TWO).parent
    diachunk.fetch(
        url_recipe(tmp_path / "one.toml", "http://127.0.0.1:9", ONE), origins=[str(root)], home=home
    )
    path = tmp_path / "two.toml"
    path.write_text(
        'name = "lab/two"\n' + "\n".join(url_component("codec", "http://127.0.0.1:9", TWO)) + "\n"
    )
    return state(read_recipe(path), Context.make(home))


def asked(home: Path, stated: StatedCheckpoint, monkeypatch: pytest.MonkeyPatch) -> Asked:
    node = Asked()
    context = Context.make(home)
    sharing = Sharing(context.config, Sociable(share=True))
    monkeypatch.setattr(sharing, "open", lambda: node)
    context = context.with_sharing(sharing)
    swarm_of(stated, Knowledge(context.store).find, context)
    return node


def test_what_is_here_of_it_is_offered_from_the_start(
    home: Path, stated: StatedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((statement, here),) = asked(home, stated, monkeypatch).joined
    assert statement.id == Statement.of(stated.walk()).id
    (path,) = here.values()
    assert path.read_bytes() == TWO["a.bin"]
    assert list(here) == [file.key for file in stated.walk() if file.path == "a.bin"]


def test_nobody_is_told_where_nothing_is_missing(
    home: Path, tmp_path: Path, stated: StatedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    diachunk.fetch(tmp_path / "two.toml", origins=[str(tmp_path / "origin")], home=home)
    assert asked(home, stated, monkeypatch).joined == []


def test_what_is_private_is_drawn_in_company_under_the_secret_alone(
    home: Path, base: Path, stated: StatedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = dataclasses.replace(stated, private=True)
    assert asked(home, private, monkeypatch).joined == []
    (base / "secret").write_text("a secret that the lab shares\n")
    (base / "secret").chmod(0o600)
    write_config(base, {}, extra=f'token_file = "{base / "secret"}"')
    assert load_config().token_file is not None
    ((statement, _),) = asked(home, private, monkeypatch).joined
    assert statement.private
