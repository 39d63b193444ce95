"""The neighbourhood as `diachunk peers` shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from diachunk.node.around.neighbours import Neighbour, NodeView
from diachunk.node.around.resolving import Named
from diachunk.node.around.roster import How, Roster
from diachunk.node.model import Address


def how_of(roster: Roster, address: Address) -> How:
    """How it was found; who is forgotten was heard of from others."""
    known = roster.get(address)
    return known.how if known is not None else How.EXCHANGE


def views(
    neighbours: Mapping[Address, Neighbour],
    roster: Roster,
    troubles: Mapping[Address, str],
    named: Iterable[Named],
) -> list[NodeView]:
    """Who is there, and who was named but is not, by address.

    Args:
        troubles: why addresses could not be called, in words.
    """
    found = [
        NodeView(
            address,
            how_of(roster, address).word,
            each.facts.version,
            each.facts.store,
            each.facts.secret,
            each.rtt_s if each.reached else None,
            each.given.request_bps if each.given.size_bytes else None,
            each.state,
            each,
        )
        for address, each in neighbours.items()
    ]
    for address, trouble in troubles.items():
        known = roster.get(address)
        if known is not None and known.how in (How.NAMED, How.DNS) and address not in neighbours:
            found.append(NodeView(address, known.how.word, trouble=trouble))
    found += [
        NodeView(each.address, "dns" if each.every_record else "named", trouble=each.trouble)
        for each in named
        if each.trouble
    ]
    return sorted(found, key=lambda view: view.address)
