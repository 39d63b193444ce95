from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.manifest import Manifest
from diachunk.store.store import Store
from fixtures.served import Served
from fixtures.shared import base, home, own_environment, quick, small
from store_files import PIECES, keep, manifest_of

__all__ = ["base", "home", "own_environment", "quick", "small"]

FILES = {"model/a.bin": PIECES, "model/b.bin": PIECES[1:3], "vocoder/empty.bin": ()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "served-store")


@pytest.fixture
def manifest(store: Store) -> Manifest:
    """What is whole in `store`."""
    made = manifest_of("lab/thing", FILES)
    keep(store, made, FILES)
    return made


@pytest.fixture
def served(store: Store, manifest: Manifest) -> Iterator[Served]:
    with Served(store) as node:
        yield node
