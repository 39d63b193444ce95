"""Examines a set-up: which checks there are, in which groups, and what comes of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from diachunk import project
from diachunk.api.checkup import (
    codec_caches,
    contents,
    disk,
    hub_blobs,
    hub_cache,
    hub_endpoint,
    machine,
    manifest_origins,
    named_peers,
    origins,
    partials,
    placed,
    ports,
    proxies,
)
from diachunk.api.checkup.base import Area, Finding, Group, Level, Online, Patient
from diachunk.api.checkup.bounded import examine
from diachunk.api.checkup.settings import read_settings
from diachunk.within import within

_SETTINGS_S = 5.0
_ORDER = {level: number for number, level in enumerate(Level)}
_AREAS = {area: number for number, area in enumerate(Area)}


def doctor(
    *, online: Online | bool | None = None, home: str | os.PathLike[str] | None = None
) -> tuple[Finding, ...]:
    """Says what is wrong with this set-up, and what cures it. Changes nothing, reads no large file, never hangs.

    Args:
        online: True asks the Hub too, False asks no server at all; by default the configured origins are asked,
            and the Hub if a checkpoint of the settings comes from it.
        home: the store, in place of the configured one.

    Returns:
        Everything that was looked at: faults first, then warnings, notes, and what is well.
    """
    how = (
        {None: Online.CONFIGURED, True: Online.ALL, False: Online.OFF}.get(online)
        if not isinstance(online, Online)
        else online
    )
    patient = _patient(how or Online.CONFIGURED, home)
    found = [*patient.settings, *examine(_groups(patient), patient)]
    found += proxies.clock(patient)  # by the time that servers told while they were asked
    return tuple(sorted(found, key=lambda each: (_ORDER[each.level], _AREAS[each.area])))


def exit_code(findings: Iterable[Finding]) -> int:
    """0 without faults; else that of the errors.py family of the fault that is to be mended first."""
    areas = {each.area for each in findings if each.level is Level.FAULT}
    return min(areas, key=_AREAS.__getitem__).exit_code if areas else 0


def _patient(online: Online, home: str | os.PathLike[str] | None) -> Patient:
    environment = dict(os.environ)
    if home is not None:
        environment["DIACHUNK_HOME"] = os.fspath(home)
    try:
        project_file = within(_SETTINGS_S, project.find_project_file)
        config, found = within(_SETTINGS_S, lambda: read_settings(environment, project_file=project_file))
    except TimeoutError as error:
        what = f"the settings: {error}; the home directory, or the one you are in, hangs"
        hangs = Finding(Level.FAULT, Area.SETTINGS, what, "cd / && HOME=/tmp diachunk doctor")
        return Patient(environment, settings=(hangs,), online=online)
    if config is None:
        return Patient(environment, settings=found, online=online)
    targets = tuple(each.target for each in config.checkpoints)
    return Patient(environment, config, found, config.home, config.origins, targets, online)


def _groups(patient: Patient) -> list[Group]:
    """What runs side by side. Checks of one group look at one disk or host, which would hang for all of them."""
    groups = [
        Group(
            Area.STORE,
            f"the store {patient.home}",
            (
                disk.access,
                disk.file_system,
                disk.space,
                disk.quotas,
                contents.mark,
                disk.modes,
                contents.names,
                contents.links,
                partials.locks,
                partials.unfinished,
                partials.room,
                contents.manifests,
            ),
        ),
        # By itself: adopted files may lie on any disk.
        Group(Area.STORE, "a disk with adopted files", (contents.adopted,)),
        Group(Area.STORE, "a disk with placed files", (placed.placed,)),
        Group(
            Area.MACHINE,
            "this machine",
            (machine.versions, machine.open_files, machine.temporary, machine.memory),
        ),
        Group(
            Area.CACHES,
            "the Hub's cache",
            (
                hub_cache.cache_directory,
                hub_blobs.incomplete,
                hub_cache.snapshots,
                hub_cache.switches,
                hub_blobs.sizes,
            ),
        ),
        Group(Area.CACHES, "the home directory", (codec_caches.codec, codec_caches.dia)),
        *_lower_stores(patient),
        Group(Area.NETWORK, "this machine's ports", (ports.ports,), origins.NETWORK_S),
    ]
    if patient.online is Online.OFF:
        return groups
    groups.append(Group(Area.NETWORK, "a proxy", (proxies.proxies, proxies.certificates), origins.NETWORK_S))
    groups += [
        Group(Area.NETWORK, f"the origin {text}", (check,), origins.NETWORK_S)
        for text, check in zip(dict.fromkeys(patient.origins), origins.checks(patient), strict=True)
    ]
    groups.append(
        Group(Area.NETWORK, "a machine that peers names", (named_peers.named_peers,), origins.NETWORK_S)
    )
    checks = (manifest_origins.manifest_origins,)
    groups.append(Group(Area.NETWORK, "an origin that a manifest names", checks, origins.NETWORK_S))
    if hub_endpoint.wanted(patient):
        groups.append(Group(Area.NETWORK, "the Hub", (hub_endpoint.hub,), origins.NETWORK_S))
    return groups


def _lower_stores(patient: Patient) -> list[Group]:
    """The site's read-only stores, each perhaps on a server of its own."""
    roots: tuple[Path, ...] = patient.config.stores if patient.config else ()
    return [Group(Area.STORE, f"the store {root}", (contents.lower_store(root),)) for root in roots]
