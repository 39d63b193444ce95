"""The cache of the native Dia set-up: `~/.cache/dia/<component>/<path>`, such as `vocoder/checkpoint.pth`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diachunk.places.base import home_of
from diachunk.places.directory import Directory


class Dia(Directory):
    """That cache."""

    kind = "dia"

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Dia:
        return cls(Path(home_of(environment), ".cache", "dia").absolute())
