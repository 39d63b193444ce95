"""verify --cache: are the files in other programs' caches what they should be? The check that no client makes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from diachunk.api.context import Context
from diachunk.api.foreign.inspection import Inspection
from diachunk.api.foreign.report import CacheReport
from diachunk.errors import UsageError
from diachunk.places import Place, cache_called
from diachunk.places import kinds as known_kinds
from diachunk.transfer.progress import Listener, silent


def verify_caches(
    kinds: Iterable[str],
    *,
    repair: bool = False,
    origins: Iterable[str] = (),
    max_down_bps: int | None = None,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> CacheReport:
    """Reads every file in the caches of these kinds ("hub", "descript", "dia", a plug-in's) and compares it with what
    it should be.

    That is what a manifest known here says, chunk by chunk; else the digest that a recipe states; else the digest in
    its own name. A file of which nobody knows anything is listed as unknown.

    Args:
        repair: replaces what is wrong, from whatever has the right bytes; nothing is written through a link.

    Raises:
        UsageError: no such kind of cache.
        StoreError, Interrupted; with `repair` also UsageError of an origin.
    """
    started_at = time.monotonic()
    places = [_cache(kind, environment) for kind in dict.fromkeys(kinds)]
    context = Context.make(home)
    inspection = Inspection(context, places, progress)
    inspection.look()
    report = CacheReport(
        (),
        tuple((place.kind, place.root, os.path.isdir(place.root)) for place in places),
        inspection.checked_bytes,
        0.0,
    )
    if repair:
        from diachunk.api.foreign.repair import Repair

        mending = Repair(context, tuple(origins), max_down_bps, progress)
        mending.mend(inspection.findings)
        report = replace(
            report,
            fetched_bytes=mending.fetched_bytes,
            reused_bytes=mending.reused_bytes,
            repair_error=mending.error,
        )
    files = tuple(finding.report for finding in inspection.findings)
    return replace(report, files=files, elapsed_s=time.monotonic() - started_at)


def _cache(kind: str, environment: Mapping[str, str]) -> Place:
    place = cache_called(kind, environment)
    if place is None:
        raise UsageError(
            f"no kind of cache is called {kind!r:.40}", hint=f"known: {', '.join(known_kinds())}"
        )
    return place
