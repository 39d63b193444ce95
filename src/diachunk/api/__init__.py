"""What users import, by way of `import diachunk`. The command line is a thin layer over this."""

from diachunk.api.care import diff, gc, ls, rm, show
from diachunk.api.fetching import Snapshot, fetch, plan
from diachunk.api.publishing import Published, publish
from diachunk.api.streaming import Fetched, events
from diachunk.api.verifying import Damage, FileReport, State, VerifyReport, verify
from diachunk.transfer.plan import ComponentPlan, Plan
from diachunk.transfer.progress import Event, FileDone, How, Notice, Progress, SourceTrouble, Status

__all__ = [
    "ComponentPlan",
    "Damage",
    "Event",
    "Fetched",
    "FileDone",
    "FileReport",
    "How",
    "Notice",
    "Plan",
    "Progress",
    "Published",
    "Snapshot",
    "SourceTrouble",
    "State",
    "Status",
    "VerifyReport",
    "diff",
    "events",
    "fetch",
    "gc",
    "ls",
    "plan",
    "publish",
    "rm",
    "show",
    "verify",
]
