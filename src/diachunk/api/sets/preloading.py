"""preload: a machine's set of checkpoints, kept complete, and pinned by a lock where a project names it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from diachunk.api.fetching import Snapshot
from diachunk.api.sets.checkpoint_set import Preloaded, PreloadFailed, PreloadPlan
from diachunk.api.sets.locking import Locking
from diachunk.api.sets.preloader import Preloader
from diachunk.api.several import several
from diachunk.api.sharing import Sociable
from diachunk.errors import DiachunkError, Interrupted
from diachunk.transfer.progress import Listener, silent


def preload(
    project: str | os.PathLike[str] | None = None,
    *,
    locking: Locking | str = Locking.KEEP,
    place: bool = False,
    into: Iterable[str] = (),
    origins: Iterable[str] = (),
    force: bool = False,
    max_down_bps: int | None = None,
    patience_s: float | None = None,
    peers: Iterable[str] = (),
    discover: bool = False,
    share: bool = False,
    max_up_bps: int | None = None,
    linger_s: float | None = None,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
) -> Preloaded:
    """Makes every checkpoint present that the project file names, or else the config, one after the other.

    Args:
        project: a `diachunk.toml` or the directory that holds it; by default that of the working directory,
            if there is one.
        locking: "keep" to what the project's lock says and add what it lacks; "update" it; or "exact": the lock
            has to cover everything and is never written.
        place: show them where their manifests hint, where neither the settings nor `into` say.
        into: kinds of place, or directories, for all of them.
        progress: as of `fetch`; the bytes add up over all of them.
        origins, force, max_down_bps, patience_s, home: as of `fetch`; so are peers, discover, share, max_up_bps and
            linger_s, with one node for all of them.

    Raises:
        UsageError: nothing is named, or the settings, the project file or its lock are wrong.
        PreloadFailed: some are not complete; all others are.
        StoreError: the lock was to be renewed, and could not be written.
        Interrupted: Ctrl-C.
    """
    preloader = Preloader(
        project,
        locking=Locking(locking),
        origins=origins,
        force=force,
        max_down_bps=max_down_bps,
        patience_s=patience_s,
        company=lambda config: Sociable(several(peers), share, discover, max_up_bps, linger_s),
        listener=progress,
        home=home,
    )
    with preloader:
        done = _all_of(preloader, several(into), hints=place, progress=progress)
        preloader.sharing.linger()
    return done


def _all_of(preloader: Preloader, given: tuple[str, ...], *, hints: bool, progress: Listener) -> Preloaded:
    done: list[Snapshot] = []
    failures: list[tuple[str, DiachunkError]] = []
    planned = preloader.plan().checkpoints
    for each in planned:
        try:
            names = preloader.goes_to_hub(each.wanted, given, hints=hints)
            snapshot = preloader.fetch(each, progress, names=names)
            preloader.place(each.wanted, snapshot.manifest, given, hints=hints)
            done.append(snapshot)
        except Interrupted:
            raise
        except DiachunkError as error:
            failures.append((each.wanted.target, error))
    if failures:
        raise PreloadFailed(failures, len(planned))
    preloader.close()
    return Preloaded(tuple(each.wanted.target for each in planned), tuple(done))


def plan_preload(
    project: str | os.PathLike[str] | None = None,
    *,
    locking: Locking | str = Locking.KEEP,
    origins: Iterable[str] = (),
    home: str | os.PathLike[str] | None = None,
) -> PreloadPlan:
    """What `preload` would do. Reads no data and asks no origin.

    Raises:
        UsageError: as preload. What is wrong with one checkpoint stands in its `error`.
    """
    return Preloader(project, locking=Locking(locking), origins=origins, home=home).plan()
