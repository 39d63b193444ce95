"""Origins that only manifests name, of checkpoints that are not complete here: what a fetch of these will meet."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from diachunk.api.checkup.base import Finding, Level, Patient
from diachunk.api.checkup.contents import open_store
from diachunk.api.checkup.origins import ask_file, context, found, from_fault
from diachunk.errors import DiachunkError
from diachunk.schedule.health import Fault
from diachunk.sources.base import SourceFault
from diachunk.sources.context import split_url
from diachunk.sources.http import HttpOrigin
from diachunk.within import within

_STORE_S = 1.5
_ORIGINS_MAX = 2
"""One after the other: what hangs takes its wait, and all have the time of one check."""


def manifest_origins(patient: Patient) -> Iterator[Finding]:
    """Whether the origins that unfinished checkpoints name can be asked."""
    try:
        named = within(_STORE_S, lambda: _named(patient))
    except TimeoutError:  # the store hangs: its own group says so
        return
    for url, (label, component, path) in [*named.items()][:_ORIGINS_MAX]:
        try:
            opened = HttpOrigin(url, replace(context(), named_by_user=False))
        except DiachunkError:
            continue  # a hint that makes no sense is passed over by a fetch, too
        try:
            yield from ask_file(opened, url, patient, [(component, path)])
        except SourceFault as fault:
            yield _told(opened.label, fault, url, label)
        finally:
            opened.close()


def _named(patient: Patient) -> dict[str, tuple[str, str, str]]:
    """URL -> the checkpoint for which it is named, and the component and path of a file that is missing here."""
    origins: dict[str, tuple[str, str, str]] = {}
    store = open_store(patient)
    if store is None:
        return origins
    refs = {ref.manifest_id: str(ref) for ref in store.catalog.refs()}
    for outline in store.catalog.outlines():
        files = [(each, part.name) for part in outline.components for each in part.files]
        missing = [(each, name) for each, name in files if not store.blobs.holds(each.blake3, each.size)]
        if not missing:
            continue
        largest, component = max(missing, key=lambda each: each[0].size)
        label = refs.get(outline.id, outline.id.hex()[:16])
        for url in store.catalog.get(outline.id).origins:
            if url not in patient.origins:
                origins.setdefault(url, (label, component, largest.path))
    return origins


def _told(label: str, fault: SourceFault, url: str, checkpoint: str) -> Finding:
    """A private address is refused unless the user names it: that is no trouble of the network."""
    if fault.fault is Fault.DENIED:
        what = f"{label}: a private address that only the manifest of {checkpoint} names, so it is not asked"
        cure = f"diachunk fetch {shlex.quote(checkpoint)} --origin {shlex.quote(url)}  # if you trust it"
        return found(Level.WARNING, what, cure)
    problem = from_fault(label, fault, split_url(url).scheme)
    return found(Level.WARNING, problem.what, problem.cure)
