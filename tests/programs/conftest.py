from __future__ import annotations

from collections.abc import Iterator

import pytest

from diachunk.testing.hub import Hub
from fixtures.shared import base, home, own_environment, quick, small
from fixtures.tiny_dia import TinyDia, tiny_dia

__all__ = ["base", "home", "own_environment", "quick", "small", "tiny_dia"]


@pytest.fixture
def hub(tiny_dia: TinyDia) -> Iterator[Hub]:
    """A Hub with the tiny Dia and its vocoder, under their real names."""
    with Hub() as hub:
        hub.resolve_cache = True
        tiny_dia.put_on(hub)
        yield hub
