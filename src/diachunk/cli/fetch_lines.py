"""What a fetch says before and after: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from diachunk.cli import text
from diachunk.cli.talk import Talk
from diachunk.errors import Interrupted, TransferIncomplete, redact

if TYPE_CHECKING:
    from diachunk.api.placing import Placed
    from diachunk.api.sharing import Sharing
    from diachunk.schedule.health import Health
    from diachunk.transfer.assemble import Report
    from diachunk.transfer.plan import Plan


_TOLD_ORIGINS = 3
_PLACES = {"hub": "the Hub's cache", "descript": "descript's cache", "dia": "Dia's cache"}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an estimate goes by: the rate of the last fetch, and the cap; either may be unknown."""

    max_down_bps: int | None = None
    pace_bps: int | None = None

    @property
    def rate_bps(self) -> int | None:
        return min(filter(None, (self.max_down_bps, self.pace_bps)), default=None)

    def expected_s(self, fetch_bytes: int) -> float | None:
        """Seconds for so many bytes, to a tenth; None if nobody can tell."""
        return round(fetch_bytes / self.rate_bps, 1) if self.rate_bps else None

    def line(self, fetch_bytes: int, disk_bytes: int, free_bytes: int) -> str:
        """Time and disk, as a person reads them."""
        rate_bps = self.rate_bps
        if not fetch_bytes:
            time = "nothing to wait for but the disk"
        elif rate_bps is None:
            time = "time unknown until it starts"
        else:
            why = "the cap" if rate_bps == self.max_down_bps else "the last fetch's rate"
            time = f"{text.about(fetch_bytes / rate_bps)} at {text.rate(rate_bps)} ({why})"
        return f"{time}; takes {text.size(disk_bytes)} of disk, {text.size(free_bytes)} free"


def announce(
    talk: Talk, plan: Plan, outlook: Outlook, *, sharing: Sharing | None = None, dry_run: bool = False
) -> None:
    """Says what is to be done, with whom, and about how long it takes."""
    if dry_run and not talk.as_json:
        talk.result("\n".join([*opening(plan, outlook), *_parts(plan)]))
    else:
        talk.say("\n".join(opening(plan, outlook, sharing)))
    emit_plan(talk, plan, outlook, sharing)


def emit_plan(
    talk: Talk, plan: Plan, outlook: Outlook, sharing: Sharing | None = None, **more: object
) -> None:
    """The event `plan`."""
    port = None if sharing is None else sharing.port
    talk.emit(
        "plan",
        name=plan.name,
        revision=plan.revision,
        id=plan.hex_id,
        directory=str(plan.directory),
        components=[
            {
                "name": each.name,
                "files": each.files,
                "total_bytes": each.total_bytes,
                "present_bytes": each.present_bytes,
                "reuse_bytes": each.reuse_bytes,
                "fetch_bytes": each.fetch_bytes,
            }
            for each in plan.components
        ],
        total_bytes=plan.total_bytes,
        present_bytes=plan.present_bytes,
        reuse_bytes=plan.reuse_bytes,
        fetch_bytes=plan.fetch_bytes,
        disk_bytes=plan.disk_bytes,
        free_bytes=plan.free_bytes,
        origins=[redact(each) for each in plan.origins],
        expected_s=outlook.expected_s(plan.fetch_bytes),
        sharing=port is not None,
        port=port,
        **more,
    )


def opening(plan: Plan, outlook: Outlook, sharing: Sharing | None = None) -> list[str]:
    """One line what there is to fetch, one about time and disk if there is anything to do."""
    here = plan.present_bytes + plan.reuse_bytes
    parts = [f"{text.size(plan.fetch_bytes)} to fetch"]
    if here:
        parts.append(f"{text.size(here)} here already")
    first = f"{text.ref(plan.ref)}: {', '.join(parts)}; {how_shared(sharing)}"
    if not plan.fetch_bytes and not plan.disk_bytes:
        return [first]
    return [first, outlook.line(plan.fetch_bytes, plan.disk_bytes, plan.free_bytes)]


def _parts(plan: Plan) -> list[str]:
    head = ("component", "files", "in all", "here", "reused", "to fetch")
    rows = [
        (
            each.name or "all files",
            f"{each.files:,}",
            text.size(each.total_bytes),
            text.size(each.present_bytes),
            text.size(each.reuse_bytes),
            text.size(each.fetch_bytes),
        )
        for each in plan.components
    ]
    origins = [f"origin: {redact(each)}" for each in plan.origins] or [
        "no origin is known: name one with --origin URL, or a machine that has it with --peer HOST"
    ]
    return [*text.columns([head, *rows], right=range(1, 6)), *origins, f"into: {plan.directory}"]


def conclude(talk: Talk, report: Report) -> None:
    """The closing line, and one for each source that lied or failed."""
    gave = [each for each in report.sources if each.verified_bytes]
    if not report.fetched_bytes and not report.reused_bytes:
        talk.say(f"all here: {text.size(report.present_bytes)}, verified before and untouched since")
    else:
        seconds = max(report.elapsed_s, 1e-3)
        line = f"fetched {text.size(report.fetched_bytes)} in {text.duration(report.elapsed_s)}"
        if report.fetched_bytes:
            line += f" ({text.rate(report.fetched_bytes / seconds)})"
        line += f", reused {text.size(report.reused_bytes + report.present_bytes)}"
        talk.say(f"{line}; {_from_whom(gave)}")
    for each in report.sources:
        name = f"peer {each.label}" if each.peer else each.label
        if each.out or each.bad_chunks:
            talk.say(f"  {name}: {each.out or each.last_fault}; do not trust it")
        elif each.peer and not talk.verbose:
            continue  # machines come and go: who has nothing to be ashamed of is not worth a line each
        elif each.faults or each.last_fault:
            failures = f" ({text.count(each.faults, 'failure')})" if each.faults else ""
            talk.say(f"  {name}: {each.last_fault}{failures}")
        elif talk.verbose:
            talk.say(f"  {name}: {text.size(each.verified_bytes)}")
    if talk.verbose and report.wasted_bytes:
        talk.say(f"  {text.size(report.wasted_bytes)} came twice or were thrown away")


def how_shared(sharing: Sharing | None) -> str:
    """Whether a fetch shares, where, with whom; or why not."""
    if sharing is not None and sharing.is_served:
        return f"sharing through the `diachunk serve` on port {sharing.port}"
    if sharing is not None and sharing.port is not None:
        return f"sharing on port {sharing.port} with {sharing.audience}"
    return "not sharing"


def _from_whom(gave: Sequence[Health]) -> str:
    """ "2 sources" without peers; else how much came from which kind."""
    peers = [each for each in gave if each.peer]
    if not peers:
        return text.count(len(gave), "source")
    origins = [each for each in gave if not each.peer]
    parts = []
    for kind, members in (("peer", peers), ("origin", origins)):
        if members:
            size_bytes = sum(each.verified_bytes for each in members)
            parts.append(f"{text.size(size_bytes)} from {text.count(len(members), kind)}")
    return ", ".join(parts)


def peer_rates(report: Report) -> dict[str, int]:
    """Bytes a second that other machines gave, those that gave anything."""
    seconds = max(report.elapsed_s, 1e-3)
    gave = (each for each in report.sources if each.peer and each.verified_bytes)
    return {each.label: max(1, round(each.request_bps or each.verified_bytes / seconds)) for each in gave}


def stay(talk: Talk, sharing: Sharing, directory: str) -> None:
    """Stays for machines that are not done yet. All is done and said: Ctrl-C only ends the staying."""
    told = False

    def tell(count: int) -> None:
        nonlocal told
        if count and not told:
            told = True
            talk.say(
                f"staying for {text.count(count, 'machine')} that {'is' if count == 1 else 'are'} not done yet, at "
                f"most {text.duration(sharing.linger_s)}; Ctrl-C ends it, nothing is lost"
            )
        talk.emit("staying", machines=count, at_most_s=sharing.linger_s, directory=directory)

    try:
        sharing.linger(tell)
    except (KeyboardInterrupt, Interrupted):
        return


def books(report: Report) -> dict[str, object]:
    """The numbers of a report, for JSON."""
    return {
        "total_bytes": report.total_bytes,
        "present_bytes": report.present_bytes,
        "reused_bytes": report.reused_bytes,
        "fetched_bytes": report.fetched_bytes,
        "wasted_bytes": report.wasted_bytes,
        "from_peers_bytes": sum(each.verified_bytes for each in report.sources if each.peer),
        "elapsed_s": round(report.elapsed_s, 3),
        "sources": [
            {
                "label": each.label,
                "peer": each.peer,
                "verified_bytes": each.verified_bytes,
                "faults": each.faults,
                "bad_chunks": each.bad_chunks,
                "last_fault": each.last_fault,
                "out": each.out,
            }
            for each in report.sources
        ],
    }


@contextmanager
def naming_strangers(target: str, plan: Plan) -> Iterator[None]:
    """Where nothing came because only the manifest names its servers, says the command that names them.

    Raises:
        TransferIncomplete: as it came, with that hint.
    """
    try:
        yield
    except TransferIncomplete as error:
        manifest = plan.manifest
        if manifest is None or "that only the manifest names" not in error.message:
            raise
        named = [each for each in manifest.origins if urlsplit(each).netloc in error.message][:_TOLD_ORIGINS]
        words = [word for each in named for word in ("--origin", each)]
        hint = f"if you trust it: {text.command('fetch', target, *words)}" if named else error.hint
        raise TransferIncomplete(error.message, hint=hint) from error


def tell_placed(talk: Talk, placed: Placed, changed: bool = True, **more: object) -> None:
    """Where a checkpoint is shown now; nothing to a person where all was there already, but for -v."""
    for each in placed.places:
        if talk.verbose or changed:
            name = _PLACES.get(each.kind)
            use = f": {each.use}" if each.use else f": {each.component}" if name and each.component else ""
            path = f" ({each.shown})" if talk.verbose and name else ""
            talk.say(f"placed in {name or each.shown}{use}{path}")
    for notice in placed.notices:
        talk.say(notice)
    talk.emit(
        "placed",
        places=[
            {
                "kind": each.kind,
                "root": str(each.root),
                "component": each.component,
                "shown": str(each.shown),
                "files": [
                    {"path": file.path, "size_bytes": file.size, "where": str(file.where), "how": file.how}
                    for file in each.files
                ],
            }
            for each in placed.places
        ],
        notices=list(placed.notices),
        **more,
    )
