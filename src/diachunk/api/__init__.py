"""What users import, by way of `import diachunk`. The command line is a thin layer over this.

Each part is loaded when it is first used: `diachunk --help` needs none of them, a fetch no asyncio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diachunk.api.care import Difference, FileDiff, Held, Listing, diff, gc, ls, rm, show
    from diachunk.api.checkup.base import Area, Finding, Level, Online
    from diachunk.api.checkup.doctor import doctor
    from diachunk.api.fetching import Snapshot, fetch
    from diachunk.api.foreign.adoption import Adoption, Share, Spoiled, adopt
    from diachunk.api.loading.access import safe_open
    from diachunk.api.loading.load import (
        LoadDone,
        Loaded,
        LoadEvent,
        LoadPlan,
        LoadProgress,
        LoadReport,
        LoadStatus,
        TensorStream,
        load,
        load_events,
        load_into,
        stream,
    )
    from diachunk.api.loading.options import LoadOptions
    from diachunk.api.placing import Placed, PlacedFile, PlacedIn, place
    from diachunk.api.planning import plan
    from diachunk.api.publishing import Published, publish
    from diachunk.api.serving import Serving, peers, serve
    from diachunk.api.sets.checkpoint_set import Planned, Preloaded, PreloadFailed, PreloadPlan
    from diachunk.api.sets.locking import Locking
    from diachunk.api.sets.preloading import plan_preload, preload
    from diachunk.api.streaming import Fetched, events
    from diachunk.api.verifying import Damage, FileReport, State, VerifyReport, verify
    from diachunk.loader.events import LoadListener
    from diachunk.loader.modules import Filled, Misshaped
    from diachunk.manifest import Component, FileEntry, Manifest
    from diachunk.manifest.signed import Signature
    from diachunk.node.views import Holding, PeerView
    from diachunk.store.blobs import Presence
    from diachunk.store.collect import Collected, Removed
    from diachunk.transfer.assemble import Report
    from diachunk.transfer.plan import ComponentPlan, Plan
    from diachunk.transfer.progress import (
        Event,
        FileDone,
        How,
        Listener,
        Notice,
        Progress,
        SourceStatus,
        SourceTrouble,
        Status,
    )

_HOMES = {
    "diachunk.store.blobs": ("Presence",),
    "diachunk.manifest.signed": ("Signature",),
    "diachunk.transfer.assemble": ("Report",),
    "diachunk.manifest": (
        "Component",
        "FileEntry",
        "Manifest",
    ),
    "diachunk.api.loading.options": ("LoadOptions",),
    "diachunk.loader.events": ("LoadListener",),
    "diachunk.loader.modules": (
        "Filled",
        "Misshaped",
    ),
    "diachunk.store.collect": (
        "Collected",
        "Removed",
    ),
    "diachunk.api.loading.load": (
        "LoadDone",
        "LoadEvent",
        "LoadPlan",
        "LoadProgress",
        "LoadReport",
        "LoadStatus",
        "Loaded",
        "TensorStream",
        "load",
        "load_events",
        "load_into",
        "stream",
    ),
    "diachunk.api.loading.access": ("safe_open",),
    "diachunk.api.sets.checkpoint_set": ("Planned", "PreloadFailed", "PreloadPlan", "Preloaded"),
    "diachunk.api.sets.locking": ("Locking",),
    "diachunk.api.placing": ("Placed", "PlacedFile", "PlacedIn", "place"),
    "diachunk.api.checkup.doctor": ("doctor",),
    "diachunk.api.checkup.base": ("Online", "Area", "Finding", "Level"),
    "diachunk.api.foreign.adoption": ("Spoiled", "Share", "Adoption", "adopt"),
    "diachunk.api.sets.preloading": ("plan_preload", "preload"),
    "diachunk.api.care": ("Difference", "FileDiff", "Held", "Listing", "diff", "gc", "ls", "rm", "show"),
    "diachunk.api.fetching": ("Snapshot", "fetch"),
    "diachunk.api.planning": ("plan",),
    "diachunk.api.publishing": ("Published", "publish"),
    "diachunk.api.streaming": ("Fetched", "events"),
    "diachunk.api.serving": ("Serving", "peers", "serve"),
    "diachunk.node.views": ("Holding", "PeerView"),
    "diachunk.api.verifying": ("Damage", "FileReport", "State", "VerifyReport", "verify"),
    "diachunk.transfer.plan": ("ComponentPlan", "Plan"),
    "diachunk.transfer.progress": (
        "Listener",
        "SourceStatus",
        "Event",
        "FileDone",
        "How",
        "Notice",
        "Progress",
        "SourceTrouble",
        "Status",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Adoption",
    "Area",
    "Collected",
    "Component",
    "ComponentPlan",
    "Damage",
    "Difference",
    "Event",
    "Fetched",
    "FileDiff",
    "FileDone",
    "FileEntry",
    "FileReport",
    "Filled",
    "Finding",
    "Held",
    "Holding",
    "How",
    "Level",
    "Listener",
    "Listing",
    "LoadDone",
    "LoadEvent",
    "LoadListener",
    "LoadOptions",
    "LoadPlan",
    "LoadProgress",
    "LoadReport",
    "LoadStatus",
    "Loaded",
    "Locking",
    "Manifest",
    "Misshaped",
    "Notice",
    "Online",
    "PeerView",
    "Placed",
    "PlacedFile",
    "PlacedIn",
    "Plan",
    "Planned",
    "PreloadFailed",
    "PreloadPlan",
    "Preloaded",
    "Presence",
    "Progress",
    "Published",
    "Removed",
    "Report",
    "Serving",
    "Share",
    "Signature",
    "Snapshot",
    "SourceStatus",
    "SourceTrouble",
    "Spoiled",
    "State",
    "Status",
    "TensorStream",
    "VerifyReport",
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
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'diachunk.api' has no attribute {name!r}")
