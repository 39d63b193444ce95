"""diachunk fetch: the verb. What it does is diachunk.fetch, and diachunk.preload without TARGET."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diachunk.cli.company import Company, Linger, MaxUp, NoDiscover, NoShare
from diachunk.cli.complete import known_names
from diachunk.cli.fetch_options import Exclude, Force, Include, Into, Locked, Patience, Place, Update
from diachunk.cli.options import (
    Components,
    Directory,
    DryRun,
    Json,
    MaxDown,
    OptionalTarget,
    Origins,
    Peers,
    Quiet,
    Verbose,
    rate_of,
    seconds_of,
)
from diachunk.cli.talk import Talk, stopping_means
from diachunk.errors import UsageError

if TYPE_CHECKING:
    from diachunk.api.fetching import Snapshot
    from diachunk.api.sharing import Sharing
    from diachunk.transfer.plan import Plan

_KEPT = "what is verified is kept: run the same again to resume"


@dataclass(frozen=True, slots=True)
class _Options:
    """What both ways of fetching take."""

    origins: tuple[str, ...]
    force: bool
    max_down_bps: int | None
    patience_s: float | None
    into: tuple[str, ...]
    place: bool
    dry_run: bool
    company: Company

    @property
    def names(self) -> bool:
        """Whether it goes where files are called by other digests than in the store."""
        return "hub" in self.into or (self.place and not self.into)


@dataclass(frozen=True, slots=True)
class _Part:
    """Which part of a checkpoint, and where to."""

    components: tuple[str, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    to: Path | None

    @property
    def option(self) -> str:
        """The first option that says so; "" if none does."""
        given = {
            "--component": self.components,
            "--to": self.to is not None,
            "--include": self.include,
            "--exclude": self.exclude,
        }
        return next((option for option, value in given.items() if value), "")


def fetch(
    target: OptionalTarget = None,
    origin: Origins = None,
    peer: Peers = None,
    component: Components = None,
    include: Include = None,
    exclude: Exclude = None,
    to: Directory = None,
    force: Force = False,
    place: Place = False,
    into: Into = None,
    locked: Locked = False,
    update: Update = False,
    max_down: MaxDown = None,
    max_up: MaxUp = None,
    no_discover: NoDiscover = False,
    no_share: NoShare = False,
    linger: Linger = None,
    patience: Patience = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Get a checkpoint: all of it, verified and resumable.

    TARGET is NAME[@REV], an id or 8 or more of its first digits, hub:ORG/REPO[@REV], a manifest or recipe
    file, or a manifest's URL. Without TARGET: all that ./diachunk.toml names, as diachunk.lock beside it pins
    it; else what your config names.

    Prints the checkpoint's directory, and nothing else, on stdout. Stopped or failed, it loses nothing: run
    the same again and it resumes. While it runs it takes from the machines of this network that have it, and
    gives them what it has verified; then it stays for those that are not done yet.
    """
    talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)
    options = _Options(
        tuple(origin or ()),
        force,
        rate_of(max_down),
        seconds_of(patience),
        tuple(into or ()),
        place,
        dry_run,
        Company(
            tuple(peer or ()), rate_of(max_up), seconds_of(linger), not no_discover, not no_share, update
        ),
    )
    part = _Part(tuple(component or ()), tuple(include or ()), tuple(exclude or ()), to)
    if target is None:
        if part.option:
            raise UsageError(
                f"{part.option} needs a TARGET",
                hint='without one each checkpoint says its own: {target = "lab/dia", to = "weights"}',
            )
        _fetch_set(talk, options, locked=locked, update=update)
    elif locked:
        raise UsageError("--locked is for what ./diachunk.toml names: leave TARGET out")
    elif update and not _is_name(target):
        raise UsageError(f"--update asks what a name stands for now, and {target} is none: leave it out")
    else:
        _fetch_one(talk, target, part, options)


def _is_name(target: str) -> bool:
    from diachunk.manifest.names import is_name

    return is_name(target.partition("@")[0]) and not target.endswith((".json", ".toml"))


def _fetch_one(talk: Talk, target: str, part: _Part, options: _Options) -> None:
    from diachunk.api.sharing import Sharing
    from diachunk.cli.asking import plainly, takes_stranger
    from diachunk.cli.fetch_lines import books, conclude, stay
    from diachunk.config import load_config

    config = load_config()
    how = options.company.how(config, takes_stranger(talk))
    with Sharing(config, how, plainly(talk)) as sharing:
        with stopping_means(_KEPT):
            snapshot = _fetched(talk, target, part, options, sharing)
        conclude(talk, snapshot.report)
        if options.place or options.into:
            _place(talk, snapshot, part.components, options.into)
        talk.result(os.fspath(snapshot))
        stay(talk, sharing, os.fspath(snapshot))
    talk.emit("done", directory=os.fspath(snapshot), id=snapshot.manifest.hex_id, **books(snapshot.report))


def _fetched(talk: Talk, target: str, part: _Part, options: _Options, sharing: Sharing) -> Snapshot:
    import diachunk
    from diachunk.cli import pace
    from diachunk.cli.fetch_lines import Outlook, announce, naming_strangers, peer_rates
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally

    home = sharing.config.home
    outlook = Outlook(options.max_down_bps or sharing.config.max_down_bps, pace.recall(home))
    plan = _plan(target, part, options, sharing, talk)
    if plan.fetch_bytes and not options.dry_run:
        sharing.open()
    announce(talk, plan, outlook, sharing=sharing, dry_run=options.dry_run)
    if options.dry_run:
        talk.emit("done", dry_run=True)
        raise typer.Exit
    tally = Tally({each.name: each.total_bytes for each in plan.components})
    with (
        naming_strangers(target, plan),
        show_progress(talk, tally) as listener,
        sharing.telling(listener),
    ):
        snapshot = diachunk.fetch(
            plan,
            origins=options.origins,
            components=part.components,
            to=part.to,
            force=options.force,
            max_down_bps=options.max_down_bps,
            patience_s=options.patience_s,
            names=options.names,
            sharing=sharing,
            progress=listener,
        )
    pace.remember_peers(home, peer_rates(snapshot.report))
    if outlook.max_down_bps is None:
        pace.remember(home, snapshot.report.fetched_bytes, snapshot.report.elapsed_s)
    return snapshot


def _plan(target: str, part: _Part, options: _Options, sharing: Sharing, talk: Talk) -> Plan:
    import diachunk
    from diachunk.cli.waiting import saying_who_is_asked

    with saying_who_is_asked(talk, (target,), company=bool(sharing.how)):
        return diachunk.plan(
            target,
            origins=options.origins,
            components=part.components,
            include=part.include,
            exclude=part.exclude,
            to=part.to,
            settings=sharing.config,
            sharing=sharing,
        )


def _place(talk: Talk, snapshot: Snapshot, components: tuple[str, ...], into: tuple[str, ...]) -> None:
    from diachunk.api.context import Context
    from diachunk.api.placing import place_manifest
    from diachunk.cli.fetch_lines import tell_placed
    from diachunk.cli.progress import show_progress
    from diachunk.cli.tally import Tally

    with stopping_means(_KEPT), show_progress(talk, Tally(), files=False) as listener:
        placed = place_manifest(
            Context.make(), snapshot.manifest, into, components=components, progress=listener
        )
    tell_placed(talk, placed)


def _fetch_set(talk: Talk, options: _Options, *, locked: bool, update: bool) -> None:
    if locked and update:
        raise UsageError("--locked and --update contradict each other")
    from diachunk.api.sets.checkpoint_set import NothingNamed
    from diachunk.api.sets.locking import Locking
    from diachunk.api.sets.preloader import Preloader
    from diachunk.cli.asking import plainly, takes_stranger
    from diachunk.cli.checkpoint_set import SetFetch, tell_how

    locking = Locking.EXACT if locked else Locking.UPDATE if update else Locking.KEEP
    try:
        preloader = Preloader(
            locking=locking,
            origins=options.origins,
            force=options.force,
            max_down_bps=options.max_down_bps,
            patience_s=options.patience_s,
            company=lambda config: options.company.how(config, takes_stranger(talk)),
            listener=plainly(talk),
        )
    except NothingNamed as error:
        names = known_names()
        known = (
            f"known here: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}" if names else error.hint
        )
        tell_how(talk, UsageError("name a checkpoint to fetch", hint=known), names)
        raise typer.Exit(error.exit_code) from error
    with preloader:
        with stopping_means(_KEPT):
            fetching = SetFetch(talk, preloader, options.into, hints=options.place)
            plan = fetching.plan()
            if plan.fetch_bytes and not options.dry_run:
                preloader.sharing.open()
            fetching.announce(plan, dry_run=options.dry_run)
            if options.dry_run:
                return
            fetching.carry_out(plan)
        fetching.stay()
        fetching.done(plan)
