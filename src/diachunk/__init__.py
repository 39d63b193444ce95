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
        Adoption,
        Area,
        ComponentPlan,
        Damage,
        Event,
        Fetched,
        FileDone,
        FileReport,
        Finding,
        Holding,
        How,
        Level,
        LoadDone,
        Loaded,
        LoadEvent,
        LoadPlan,
        LoadProgress,
        LoadReport,
        LoadStatus,
        Locking,
        Notice,
        PeerView,
        Placed,
        PlacedFile,
        PlacedIn,
        Plan,
        Preloaded,
        PreloadFailed,
        PreloadPlan,
        Progress,
        Published,
        Serving,
        Snapshot,
        SourceTrouble,
        State,
        Status,
        TensorStream,
        VerifyReport,
        adopt,
        diff,
        doctor,
        events,
        fetch,
        gc,
        load,
        load_events,
        load_into,
        ls,
        peers,
        place,
        plan,
        plan_preload,
        preload,
        publish,
        rm,
        safe_open,
        serve,
        show,
        stream,
        verify,
    )

__all__ = [
    "Adoption",
    "Area",
    "ComponentPlan",
    "Damage",
    "Event",
    "Fetched",
    "FileDone",
    "FileReport",
    "Finding",
    "Holding",
    "How",
    "Level",
    "LoadDone",
    "LoadEvent",
    "LoadPlan",
    "LoadProgress",
    "LoadReport",
    "LoadStatus",
    "Loaded",
    "Locking",
    "Notice",
    "PeerView",
    "Placed",
    "PlacedFile",
    "PlacedIn",
    "Plan",
    "PreloadFailed",
    "PreloadPlan",
    "Preloaded",
    "Progress",
    "Published",
    "Serving",
    "Snapshot",
    "SourceTrouble",
    "State",
    "Status",
    "TensorStream",
    "VerifyReport",
    "__version__",
    "adopt",
    "diff",
    "doctor",
    "events",
    "fetch",
    "gc",
    "load",
    "load_events",
    "load_into",
    "ls",
    "peers",
    "place",
    "plan",
    "plan_preload",
    "preload",
    "publish",
    "rm",
    "safe_open",
    "serve",
    "show",
    "stream",
    "verify",
]


def __getattr__(name: str) -> object:
    """Loads the library when it is first used."""
    if name in __all__:
        return getattr(importlib.import_module("diachunk.api"), name)
    raise AttributeError(f"module 'diachunk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
