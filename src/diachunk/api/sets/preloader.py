"""The steps of a preload: what `preload`, `fetch` without TARGET and `run` are made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from diachunk.api.context import Context
from diachunk.api.fetching import Snapshot, fetch
from diachunk.api.parts import components_of_recipe
from diachunk.api.planning import Wish, plan_for
from diachunk.api.recipes import NOTHING_PICKED, Pick
from diachunk.api.sets.checkpoint_set import NothingNamed, Planned, PreloadPlan
from diachunk.api.sets.lockfile import Entry
from diachunk.api.sets.locking import Locking, ProjectLock, check_planned, check_stored
from diachunk.api.sets.placing import Taken, fitting
from diachunk.api.several import several
from diachunk.api.sharing import Sharing, Sociable
from diachunk.config import Config, load_config
from diachunk.errors import DiachunkError, Interrupted, StoreError, TrustError, UsageError
from diachunk.manifest import Manifest
from diachunk.manifest.names import parse_ref
from diachunk.project import LOCK_FILE, PLACE_KINDS, PROJECT_FILE, WantedCheckpoint, find_project_file
from diachunk.schedule.work import files_of
from diachunk.transfer.plan import Plan, plan_components
from diachunk.transfer.progress import Listener, Notice, silent

if TYPE_CHECKING:
    from diachunk.api.placing import Placed


class Preloader:
    """The set that settings name, step by step: `plan`; `fetch` and `place` for each checkpoint; `close`.

    Attributes:
        config: the settings, a project file's included.
        named_by: the file whose set it is.
        lock: its lock; None where the set is not a project's.
        max_down_bps: the cap on the rate, or None.
        sharing: other machines, one node for the whole set; ends with the `with` block around all.

    Args:
        project: a `diachunk.toml` or the directory that holds it; by default that of the working directory,
            if there is one.
        company: how far to go towards other machines, given the settings.
        listener: told what goes wrong with them.
        home: the store, in place of the configured one.
        The others are those of `fetch`.

    Raises:
        UsageError: nothing is named (NothingNamed), or settings or the lock are wrong.
    """

    def __init__(
        self,
        project: str | os.PathLike[str] | None = None,
        *,
        locking: Locking = Locking.KEEP,
        origins: Iterable[str] = (),
        force: bool = False,
        max_down_bps: int | None = None,
        patience_s: float | None = None,
        company: Callable[[Config], Sociable] = lambda config: Sociable(),
        listener: Listener = silent,
        home: str | os.PathLike[str] | None = None,
    ) -> None:
        file = find_project_file() if project is None else _project_file(Path(project))
        environment = os.environ if home is None else {**os.environ, "DIACHUNK_HOME": os.fspath(home)}
        self.config = load_config(environment, project_file=file)
        self.named_by = self.config.came_from.get("checkpoints", "")
        if not self.config.checkpoints:
            raise NothingNamed(
                "no checkpoints are named",
                hint=f"name some in ./{PROJECT_FILE} or your config.toml: checkpoints = [TARGET, ...]",
            )
        self.max_down_bps = max_down_bps or self.config.max_down_bps
        self._origins = several(origins)
        self._force = force
        self._patience_s = self.config.limits.patience_s if patience_s is None else patience_s
        self.lock = self._open_lock(file, locking)
        self.sharing = Sharing(self.config, company(self.config), listener)
        self._taken = Taken()

    def _open_lock(self, file: Path | None, locking: Locking) -> ProjectLock | None:
        if file is not None and self.named_by == str(file):
            targets = [each.key for each in self.config.checkpoints]
            return ProjectLock(file.with_name(LOCK_FILE), targets, locking)
        if locking is Locking.KEEP:
            return None
        raise UsageError(
            f"the checkpoints that {self.named_by} names have no lock",
            hint=f"a lock lies beside a {PROJECT_FILE}: name them in one",
        )

    def close(self) -> None:
        """To be called when all is done.

        Raises:
            StoreError: the lock was to be renewed, and could not be written.
        """
        if self.lock is not None:
            self.lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sharing.close()

    # --- plan ----------------------------------------------------------------------------------------------

    def plan(self) -> PreloadPlan:
        """What there is to do, for each checkpoint and in all. One that cannot be planned does not stop the rest."""
        planned = tuple(map(self._planned, self.config.checkpoints))
        plans = [(each.wanted, each.plan) for each in planned if each.plan is not None]
        lock = self.lock.path if self.lock is not None else None
        free_bytes = Context(self.config).store.layout.free_bytes()
        return PreloadPlan(self.named_by, lock, planned, *self._sums(plans), free_bytes)

    def _planned(self, wanted: WantedCheckpoint) -> Planned:
        try:
            return Planned(wanted, self._plan(wanted))
        except Interrupted:
            raise
        except DiachunkError as error:
            return Planned(wanted, error=error)

    def _plan(self, wanted: WantedCheckpoint) -> Plan:
        entry = self.lock.entry(wanted.key) if self.lock is not None else None
        if entry is None:
            return self._plan_of(wanted, wanted.locator)
        catalog = Context(self.config).store.catalog
        try:
            manifest = catalog.get(entry.id)
        except (UsageError, StoreError):  # not here, or damaged: the target has to give it
            return self._plan_from_target(wanted, entry)
        check_stored(entry, manifest, self._part(wanted) or components_of_recipe(wanted.locator))
        plan = self._plan_of(wanted, entry.hex_id)
        # As if asked for by its name, unless that stands for another checkpoint here by now.
        free = catalog.ref(manifest.name, manifest.revision) in (None, entry.id)
        return replace(plan, by_name=free and _names(wanted.target, manifest))

    def _plan_from_target(self, wanted: WantedCheckpoint, entry: Entry) -> Plan:
        try:
            plan = self._plan_of(wanted, entry.hub_target or wanted.locator)
        except UsageError as error:
            raise TrustError(
                f"locked to {entry.hex_id}, which is not here and cannot be had: {error.message}",
                hint=error.hint,
            ) from error
        check_planned(entry, plan)
        return plan

    def _plan_of(self, wanted: WantedCheckpoint, target: str) -> Plan:
        of_hub = target.startswith("hub:")  # an id stands for what was picked already
        wish = Wish(
            target,
            (*wanted.origins, *self._origins),
            wanted.components,
            Pick.of(wanted.include, wanted.exclude) if of_hub else NOTHING_PICKED,
            wanted.to,
            self._part(wanted) if self.lock is not None else None,
        )
        return plan_for(wish, Context.make(settings=self.config).with_sharing(self.sharing))

    def _part(self, wanted: WantedCheckpoint) -> tuple[str, ...]:
        """What the set wants of a target, all its entries together: a lock has one id for it, which is the same on
        every machine. () for all of it.
        """
        every = [each.components for each in self.config.checkpoints if each.key == wanted.key]
        return tuple(dict.fromkeys(name for names in every for name in names)) if all(every) else ()

    def _sums(self, plans: Sequence[tuple[WantedCheckpoint, Plan]]) -> tuple[int, int, int, int, int]:
        """total, present, reuse, fetch, disk: of what goes to the store each file and chunk once, but for drafts."""
        context = Context(self.config)
        files = {
            facts.digest: facts
            for wanted, plan in plans
            if wanted.to is None and plan.manifest is not None
            for facts in files_of(plan.manifest, frozenset(wanted.components) or None, merged=True)
        }
        parts, disk_bytes = plan_components(
            context.store, context.destination(None, force=False), list(files.values()), context.lower_stores
        )
        elsewhere = [plan for wanted, plan in plans if wanted.to is not None or plan.draft]
        every = (*parts, *(part for plan in elsewhere for part in plan.components))
        return (
            sum(each.total_bytes for each in every),
            sum(each.present_bytes for each in every),
            sum(each.reuse_bytes for each in every),
            sum(each.fetch_bytes for each in every),
            disk_bytes + sum(plan.disk_bytes for plan in elsewhere),
        )

    # --- do ------------------------------------------------------------------------------------------------

    def fetch(self, planned: Planned, progress: Listener = silent, *, names: bool = False) -> Snapshot:
        """Makes one checkpoint present, and writes it into the lock where that lacks it.

        Args:
            names: as of `diachunk.fetch`: what `goes_to_hub` says.

        Raises:
            DiachunkError: as `diachunk.fetch`; TrustError also where it is not what the lock says.
        """
        wanted = planned.wanted
        if planned.plan is None:
            raise planned.error or UsageError(f"{wanted.target}: not planned")
        if wanted.to is not None and planned.plan.manifest is not None:
            self._taken.take([wanted.to], wanted, planned.plan.manifest)
        snapshot = fetch(
            planned.plan,
            origins=(*wanted.origins, *self._origins),
            components=wanted.components,
            to=wanted.to,
            force=self._force,
            max_down_bps=self.max_down_bps,
            patience_s=self._patience_s,
            names=names,
            sharing=self.sharing,
            progress=progress,
            settings=self.config,
        )
        if self.lock is not None:
            entry = self.lock.entry(wanted.key)
            if entry is not None:
                entry.check(snapshot.manifest)  # once more: of a recipe only the fetch says what it makes
            trouble = self.lock.note(wanted.key, snapshot.manifest)
            if trouble:
                progress(Notice(f"{trouble}: what was fetched stays unlocked"))
        return snapshot

    def goes_to_hub(self, wanted: WantedCheckpoint, into: Sequence[str] = (), *, hints: bool = False) -> bool:
        """Whether `place` may show it in the Hub's cache, which calls files by other digests than the store does:
        they are computed best while the bytes arrive.
        """
        said = tuple(into) or wanted.places
        if said is None:
            said = self.config.places if self.config.places is not None else ("hub",) if hints else ()
        return "hub" in said

    def place(
        self,
        wanted: WantedCheckpoint,
        manifest: Manifest,
        into: Sequence[str] = (),
        *,
        hints: bool = False,
        progress: Listener = silent,
    ) -> tuple[Placed, bool] | None:
        """Shows a checkpoint where other programs look for it: where the caller says, else where its own entry in
        the set does, else where the settings say it of all that fits.

        Args:
            hints: whether the manifest's own hints count where nobody says.

        Returns:
            What was done, and whether anything was not there before; None if it belongs nowhere.

        Raises:
            DiachunkError: as `diachunk.place`.
        """
        from diachunk.api.placing import place_manifest
        from diachunk.places.judge import Verdict

        said = tuple(into) or wanted.places
        if said is None and (self.config.places is not None or hints):
            general = self.config.places
            said = fitting(manifest, wanted.components, general or ()) if general != () else None
            if said is None:
                return None
        elif not said:
            return None
        self._taken.take([Path(each) for each in said if each not in PLACE_KINDS], wanted, manifest)
        context = Context(self.config)
        before = place_manifest(context, manifest, said, components=wanted.components, dry_run=True)
        placed = place_manifest(context, manifest, said, components=wanted.components, progress=progress)
        put = {each.value for each in Verdict if each.to_put}
        return placed, any(file.how in put for file in before.files)


def _project_file(path: Path) -> Path:
    file = Path(os.path.abspath(path / PROJECT_FILE if path.is_dir() else path))
    if not os.path.lexists(file):
        raise UsageError(f"{file}: no such project file")
    return file


def _names(target: str, manifest: Manifest) -> bool:
    """Whether a target is the name of a checkpoint."""
    try:
        return parse_ref(target) == (manifest.name, manifest.revision)
    except UsageError:
        return False
