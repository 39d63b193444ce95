"""diachunk: gets machine-learning checkpoints onto machines and proves that they are right.

    import diachunk
    snapshot = diachunk.fetch("./dia.json", origins=["https://example.org/dia"])
    snapshot.path("vocoder/model.safetensors")

Everything public is here; submodules are not. Errors are in `diachunk.errors`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from diachunk.version import __version__

if TYPE_CHECKING:
    from diachunk.api import (
        ComponentPlan,
        Damage,
        Event,
        Fetched,
        FileDone,
        FileReport,
        How,
        Notice,
        Plan,
        Progress,
        Published,
        Snapshot,
        SourceTrouble,
        State,
        Status,
        VerifyReport,
        diff,
        events,
        fetch,
        gc,
        ls,
        plan,
        publish,
        rm,
        show,
        verify,
    )

__all__ = [
    "ComponentPlan",
    "Damage",
    "Event",
    "Fetched",
    "FileDone",
    "FileReport",
    "How",
    "Notice",
    "Plan",
    "Progress",
    "Published",
    "Snapshot",
    "SourceTrouble",
    "State",
    "Status",
    "VerifyReport",
    "__version__",
    "diff",
    "events",
    "fetch",
    "gc",
    "ls",
    "plan",
    "publish",
    "rm",
    "show",
    "verify",
]


def __getattr__(name: str) -> object:
    """Loads the library when it is first used."""
    if name in __all__:
        return getattr(importlib.import_module("diachunk.api"), name)
    raise AttributeError(f"module 'diachunk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
