"""diachunk doctor: the verb. What it does is diachunk.doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from diachunk.cli import text
from diachunk.cli.options import Json, Quiet, Verbose
from diachunk.cli.talk import Talk
from diachunk.errors import UsageError

if TYPE_CHECKING:
    from diachunk.api.checkup.base import Finding


def doctor(
    online: Annotated[bool, typer.Option("--online", help="Ask the Hub, too.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no server at all.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what is wrong here, and the command that cures it.

    Looks at settings, store, disk, network and the caches of other programs; changes nothing, and takes a few
    seconds. With -v also what is well.

    Exits 0 unless something is at fault, and then with the code of what is to be mended first: 2 settings, 6 the
    store or the machine, 5 the network, 4 a damaged cache of another program. Warnings and notes do not count.
    """
    if online and offline:
        raise UsageError("--online and --offline exclude each other")

    from diachunk.api.checkup.base import Level
    from diachunk.api.checkup.doctor import doctor as examine
    from diachunk.api.checkup.doctor import exit_code

    talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)
    findings = examine(online=True if online else False if offline else None)
    for each in findings:
        talk.emit("finding", level=each.level.value, area=each.area.value, what=each.what, cure=each.cure)
        least = Level.FAULT if talk.quiet else Level.OK if talk.verbose else Level.NOTE
        if [*Level].index(each.level) <= [*Level].index(least):
            _show(talk, each)
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    code = exit_code(findings)
    talk.emit(
        "done",
        ok=code == 0,
        exit_code=code,
        checks=len(findings),
        faults=counts[Level.FAULT],
        warnings=counts[Level.WARNING],
        notes=counts[Level.NOTE],
    )
    wrong = [
        text.count(counts[level], level.value) for level in (Level.FAULT, Level.WARNING) if counts[level]
    ]
    if wrong:
        talk.result(", ".join(wrong))
    elif not talk.quiet:
        talk.result(f"nothing wrong found: {text.count(len(findings), 'check')}")
    if code:
        raise typer.Exit(code)


def _show(talk: Talk, finding: Finding) -> None:
    """One line what, one line the cure."""
    talk.result(f"{finding.level.value:<7}  {finding.area.value:<8}  {finding.what}")
    if finding.cure:
        talk.result(f"         {finding.cure}")
