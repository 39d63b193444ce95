"""Which targets there are. Imports nothing of diachunk: its modules must load under instrumentation."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

REGRESSIONS = Path(__file__).parent / "regressions"


class TargetModule(Protocol):
    """What a module of `fuzz.targets` has."""

    DICTIONARY: tuple[bytes, ...]
    """Words of the format, for a fuzzer that only knows bytes."""

    def fuzz_one(self, data: bytes) -> None:
        """Feeds one input to the code under test.

        Raises:
            AssertionError: it broke a promise.
        """
        ...

    def seeds(self) -> list[bytes]:
        """Inputs that reach deep: valid ones, and what is costly to find by chance."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """One fuzz target.

    Attributes:
        instrument: the diachunk packages whose branches guide the fuzzer.
        bytes_max: the longest input.
    """

    name: str
    instrument: tuple[str, ...]
    bytes_max: int = 8 * 1024

    def load(self) -> TargetModule:
        return cast(TargetModule, importlib.import_module(f"fuzz.targets.{self.name}"))

    def regressions(self) -> list[Path]:
        """Inputs that once broke a promise, committed."""
        return sorted((REGRESSIONS / self.name).glob("*.bin"))


_FORMATS = ("diachunk.formats", "diachunk.chunking.cuts")

TARGETS = {
    target.name: target
    for target in (
        Target("manifest", ("diachunk.manifest",), 32 * 1024),
        Target("safetensors", _FORMATS),
        Target("torch_zip", _FORMATS),
        Target("gguf", _FORMATS),
        Target("bitmap", ("diachunk.bitmap",), 1024),
        Target("replies", ("diachunk.sources.reply", "diachunk.sources.http"), 2048),
        Target("answers", ("diachunk.node.around.answers",), 4096),
        Target("config", ("diachunk.config", "diachunk.limits"), 8 * 1024),
        Target("records", ("diachunk.store",), 8 * 1024),
        Target(
            "origins", ("diachunk.sources.template", "diachunk.sources.open", "diachunk.sources.http"), 2048
        ),
        Target("names", ("diachunk.api.targets", "diachunk.manifest.names", "diachunk.manifest.paths"), 2048),
        Target("trust", ("diachunk.sources.secret", "diachunk.manifest.signed"), 20 * 1024),
        Target("messages", ("diachunk.errors",), 64 * 1024),
        Target("load_headers", ("diachunk.loader",), 16 * 1024),
        Target("kept", ("diachunk.loader.kept", "diachunk.loader.layout")),
        Target("recipe", ("diachunk.manifest.recipe", "diachunk.manifest.stated", "diachunk.store.drafts")),
    )
}
