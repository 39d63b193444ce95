"""diachunk peers: the verb. Who is there, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diachunk.cli import text
from diachunk.cli.company import NoDiscover
from diachunk.cli.options import Json, Peers, Quiet
from diachunk.cli.talk import Talk

if TYPE_CHECKING:
    from diachunk.node.views import Holding, PeerView

_HELD_SHOWN = 8
_HOW = {"named": "named", "dns": "DNS", "mdns": "mDNS", "exchange": "exchange"}


def peers(
    peer: Peers = None, no_discover: NoDiscover = False, as_json: Json = False, quiet: Quiet = False
) -> None:
    """List the machines that share, and what they hold.

    Looks for two seconds on this network (mDNS), asks those that your config and --peer name, and whom those
    know.
    """
    import diachunk
    from diachunk.cli import pace
    from diachunk.config import load_config
    from diachunk.sources.secret import WANTS_SECRET

    talk = Talk(as_json=as_json, quiet=quiet)
    config = load_config()
    looks = config.discover and not no_discover
    found = diachunk.peers(tuple(peer or ()), discover=looks, settings=config)
    rates = pace.recall_peers(config.home)
    talk.emit("peers", peers=[_facts(each, rates.get(each.address)) for each in found])
    if found and not as_json:
        talk.result("\n".join(_lines(found, rates)))
    if found and all(each.trouble.startswith(WANTS_SECRET) for each in found):
        talk.say(
            "they give only to who knows the lab's secret\n"
            "  token_file has to name the same one here, and the time has to be right: diachunk config; date"
        )
    elif not any(not each.trouble for each in found):
        talk.say("\n".join(_nobody(looks=looks, named=bool(peer or config.peers))))
    talk.emit("done", peers=sum(not each.trouble for each in found))


def _lines(found: list[PeerView], rates: dict[str, int]) -> list[str]:
    rows = [("machine", "known by", "diachunk", "gave last")]
    for each in found:
        rate = rates.get(each.address)
        rows.append(
            (
                each.address,
                _HOW.get(each.how, each.how),
                each.version or "?",
                text.rate(rate) if rate else "",
            )
        )
    head, *rest = text.columns(rows)
    lines = [head]
    for line, each in zip(rest, found, strict=True):
        lines.append(f"{line}  {each.trouble}" if each.trouble else line)
        lines += [f"    {_held(one)}" for one in each.holdings[:_HELD_SHOWN]]
        if len(each.holdings) > _HELD_SHOWN:
            lines.append(f"    + {len(each.holdings) - _HELD_SHOWN} more")
        if not each.holdings and not each.trouble:
            lines.append("    nothing yet")
    return lines


def _held(holding: Holding) -> str:
    name = text.ref(f"{holding.name}@{holding.revision}")
    if holding.complete:
        return f"{name}: complete, {text.size(holding.total_bytes)}"
    share = text.percent(holding.have_bytes, holding.total_bytes)
    return f"{name}: {share} of {text.size(holding.total_bytes)}{', fetching' if holding.wanted else ''}"


def _nobody(*, looks: bool, named: bool) -> list[str]:
    lines = ["no machine that shares was found"]
    lines.append("  on a machine that has a checkpoint: diachunk serve")
    if not looks:
        lines.append(
            "  discovery is off; without --no-discover (or discover = false) this network is searched"
        )
    elif not named:
        lines.append("  it runs, and is not found? Multicast may be blocked: diachunk peers --peer HOST")
    return lines


def _facts(peer: PeerView, rate_bps: int | None) -> dict[str, object]:
    return {
        "address": peer.address,
        "how": peer.how,
        "version": peer.version,
        "secret": peer.secret,
        "rate_bps": rate_bps,
        "trouble": peer.trouble,
        "checkpoints": [
            {
                "id": each.id.hex(),
                "name": each.name,
                "revision": each.revision,
                "total_bytes": each.total_bytes,
                "have_bytes": each.have_bytes,
                "fetching": each.wanted,
            }
            for each in peer.holdings
        ],
    }
