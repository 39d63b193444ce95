"""The machines that the settings name: does each answer, and does it let this one in."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from diachunk.api.checkup.base import Finding, Level, Patient
from diachunk.api.checkup.origins import found
from diachunk.errors import DiachunkError
from diachunk.limits import DEFAULT
from diachunk.sources.secret import WANTS_SECRET, Secret

if TYPE_CHECKING:
    from diachunk.node.around.talking import Talker

_PEERS_MAX = 16
_LIMITS = dataclasses.replace(DEFAULT, connect_timeout_s=2.0, stall_s=4.0)
"""Under the time that the network's checks have."""


def named_peers(patient: Patient) -> Iterator[Finding]:
    """Asks each what it is, with the lab's secret where there is one."""
    config = patient.config
    if config is None or not config.peers:
        return
    try:
        secret = None if config.token_file is None else Secret.load(config.token_file)
    except DiachunkError as error:
        yield found(Level.FAULT, error.message, error.hint)
        return
    for name, trouble in asyncio.run(_ask_all(config.peers[:_PEERS_MAX], secret)):
        if not trouble:
            yield found(Level.OK, f"the machine {name} answers")
            continue
        cure = f"diachunk peers --peer {shlex.quote(name)}  # does `diachunk serve` run there? a firewall?"
        if trouble.startswith(WANTS_SECRET):
            cure = "diachunk config  # token_file: the same secret as there"
        if "its clock" in trouble:
            cure = "sudo timedatectl set-ntp true  # here or there: whichever is wrong"
        yield found(Level.WARNING, f"the machine {name}, which the settings name: {trouble}", cure)


async def _ask_all(names: tuple[str, ...], secret: Secret | None) -> list[tuple[str, str]]:
    from diachunk.node.around.talking import Talker

    talker = Talker(_LIMITS, secret)
    talker.start()
    try:
        troubles = await asyncio.gather(*(_trouble(talker, name) for name in names))
    finally:
        await talker.close()
    return list(zip(names, troubles, strict=True))


async def _trouble(talker: Talker, name: str) -> str:
    from diachunk.node.around.answers import SMALL_BYTES_MAX
    from diachunk.node.around.resolving import Named, look_up
    from diachunk.node.around.talking import Unreached

    try:
        address = Named.parse(name).address
        address = (await look_up(address.host, address.port))[0]
        reply = await talker.ask(address, "/v1/node", limit_bytes=SMALL_BYTES_MAX)
    except DiachunkError as error:
        return error.message
    except TimeoutError:
        return "its name gets no answer in time"
    except OSError as error:
        return f"its name: {error.strerror or error}"
    except Unreached as error:
        return error.detail
    return reply.refusal or ("" if reply.status == 200 else f"status {reply.status}")
