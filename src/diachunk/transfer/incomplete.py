"""The end that no source could prevent, told so that a person knows what each of them did."""

from __future__ import annotations

import errno
import os

from diachunk.errors import TransferIncomplete
from diachunk.schedule.health import Health, Tier
from diachunk.schedule.work import WorkList
from diachunk.transfer.session import Outcome

_SILENCE = (
    "no answer",
    "no connection in time",
    "host name not found",
    "connection refused",
    *(os.strerror(number) for number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)),
)
"""How the fault of a source begins that never said a word: rather the network's than its own."""


def incomplete(outcome: Outcome, work: WorkList, *, upstream: bool = False) -> TransferIncomplete:
    """The error that names every source and what it did.

    Args:
        upstream: what is fetched is a recipe's, from where that says.
    """
    left = sum(work.size(item) for item in outcome.missing)
    labels = sorted({work.blobs[work.blob_of(item)].label for item in outcome.missing})
    files = labels[0]
    if len(labels) > 1:
        files += f" and {len(labels) - 1} more file{'s' if len(labels) > 2 else ''}"
    network = [each for each in outcome.sources if each.tier is Tier.NETWORK]
    if not network:
        return TransferIncomplete(
            f"{left:,} bytes of {files} are not on this machine and no origin is known",
            hint="name one with --origin URL, or a machine that has it with --peer HOST",
        )
    # An upstream of another component was never asked.
    asked = [each for each in network if each.out or each.last_fault or each.missing_blobs] or network
    tales = "; ".join(f"{each.label}: {each.out or each.last_fault or 'has none of it'}" for each in asked)
    hint = "what is verified is kept: run the same again to resume, or add --origin URL"
    if all(
        each.missing_blobs and not each.denials and not each.faults and not each.bad_chunks
        for each in network
    ):
        hint = "files are expected at ORIGIN/<component>/<path>; once they are, run the same again to resume"
        if upstream:
            hint = "it was moved or taken away there; another server that has it: --origin URL"
    if all("an HTML page" in (each.out or each.last_fault) for each in asked):
        hint = "a login page? open any page in a browser and sign in there, then run the same again to resume"
    if all(map(_silent, asked)):
        hint += "; `diachunk doctor --online` looks at the network"
    if any("that only the manifest names" in each.last_fault for each in network):
        hint = "if you trust what the manifest names, name it yourself: --origin URL (`diachunk show` lists them)"
    return TransferIncomplete(f"{left:,} bytes of {files} are missing ({outcome.why}). {tales}", hint=hint)


def _silent(health: Health) -> bool:
    fault = health.last_fault.removeprefix("the proxy: ")
    return not health.received_bytes and not health.missing_blobs and fault.startswith(_SILENCE)
