"""What a name stands for, when it has to be asked of others. Pure: who is asked, and how, is no matter of this."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from diachunk.api.trust.older import why_older
from diachunk.api.trust.signers import Signed, Verdict
from diachunk.digest import Digest
from diachunk.errors import TrustError
from diachunk.manifest import Manifest
from diachunk.store.marks import Seen

_SHOWN = 8
_COPIES_MAX = 8
_UNKNOWN = Verdict(None, "nobody gave its manifest")


class How(enum.Enum):
    """How a peer is known. The first two were named by the user or the settings, and so may say what a name means."""

    NAMED = "named"
    DNS = "dns"
    MDNS = "mdns"
    EXCHANGE = "exchange"

    @property
    def is_named(self) -> bool:
        return self in (How.NAMED, How.DNS)


@dataclass(frozen=True, slots=True)
class Offer:
    """What one peer says that a name stands for.

    Attributes:
        address: HOST:PORT, for people, and for `--peer`.
        manifest: its manifest, if it was had; without one a signature cannot count.
    """

    address: str
    how: How
    id: Digest
    manifest: Manifest | None = None


def _nobody(manifest: Manifest) -> Verdict:
    return Verdict(None, "nobody's signature is trusted here")


@dataclass(frozen=True, slots=True)
class Known:
    """What this machine knows of a name by itself.

    Attributes:
        local: what the name stands for here.
        pin: what the settings say it stands for.
        seen: the latest version that a trusted signer vouched for.
        require_signed: of the settings.
        judge: which signature of a manifest holds.
    """

    local: Digest | None = None
    pin: Digest | None = None
    seen: Seen | None = None
    require_signed: bool = False
    judge: Callable[[Manifest], Verdict] = field(default=_nobody)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the name stands for, why that is believed (for people), and who offers it: first who has it signed."""

    id: Digest
    why: str
    offers: tuple[Offer, ...] = ()
    signed: Signed | None = None


Ask = Callable[[Digest, Sequence[Offer]], bool]
"""Shows an id and who offers it to a person, who takes it or not."""


def choose(
    name: str, revision: str, offers: Iterable[Offer], known: Known, ask: Ask | None = None
) -> Choice | None:
    """Settles what NAME@REVISION stands for: a local name, a pin, a trusted signer, a peer that was named; last, a
    person who is asked.

    Args:
        ask: None where there is no terminal.

    Returns:
        None when nobody offers anything.

    Raises:
        TrustError: it cannot be settled; says who offers what, and the command that would take it.
    """
    if known.local is not None:
        return Choice(known.local, "the name stands for it here")
    if known.pin is not None:
        given = tuple(each for each in offers if each.id == known.pin)
        return Choice(known.pin, "pinned in the settings", given)
    asked = _Asked(f"{name}@{revision}", known, offers)
    found = asked.signed() or asked.named()
    if found is not None or not asked.any:
        return found
    return asked.person(ask)


def newer(name: str, revision: str, offers: Iterable[Offer], known: Known) -> Choice | None:
    """What NAME@REVISION, which stands for something here, should stand for now: a later version by a trusted signer,
    or what a named peer has in place of it.

    Returns:
        None when nobody has anything newer.

    Raises:
        TrustError: named peers disagree about it, or the only other versions are not to be trusted.
    """
    if known.pin is not None:
        return None if known.pin == known.local else Choice(known.pin, "pinned in the settings")
    others = [each for each in offers if each.id != known.local]
    asked = _Asked(f"{name}@{revision}", known, others)
    found = asked.signed(after_local=True) or asked.named()
    if found is None and asked.refused:
        raise asked.error("no version of it that is offered can be taken")
    return found


class _Asked:
    """The offers of one name, sorted into those that may be believed and those that may not, and why not."""

    def __init__(self, ref: str, known: Known, offers: Iterable[Offer]) -> None:
        self._ref = ref
        self._known = known
        self.refused: list[str] = []
        self._left: list[tuple[Offer, Signed | None]] = []
        self.any = False
        verdicts: dict[Digest, Verdict] = {}
        copies: Counter[Digest] = Counter()
        right: list[Offer] = []
        for offer in offers:
            self.any = True
            manifest = offer.manifest
            if manifest is None:
                right.append(offer)
            elif (manifest.id, manifest.ref) != (offer.id, ref):
                self._refuse(offer, "but its manifest is of another id or name")
            else:
                right.append(offer)
                copies[offer.id] += 1
                before = verdicts.get(offer.id)
                # A copy may come without its signatures; a crowd of copies must not keep us busy.
                if before is None or (before.signed is None and copies[offer.id] <= _COPIES_MAX):
                    verdicts[offer.id] = known.judge(manifest)
        for offer in right:
            verdict = verdicts.get(offer.id, _UNKNOWN)
            if why := why_older(offer.id, verdict.signed, known.seen):
                self._refuse(offer, f"which {why}")
            elif verdict.signed is None and known.require_signed:
                self._refuse(offer, f"but {verdict.why}, and require_signed is set")
            else:
                self._left.append((offer, verdict.signed))

    def _refuse(self, offer: Offer, why: str) -> None:
        self.refused.append(f"{offer.address} offers {offer.id.hex()[:16]}…, {why}")

    def signed(self, *, after_local: bool = False) -> Choice | None:
        """The latest that a trusted signer signed. `after_local`: later than what stands here."""
        best = max((signed.serial for _, signed in self._left if signed is not None), default=None)
        if best is None:
            return None
        seen = self._known.seen
        if after_local and seen is not None and seen.manifest_id == self._known.local and best <= seen.serial:
            return None
        winners = [
            (offer, signed) for offer, signed in self._left if signed is not None and signed.serial == best
        ]
        offers = [offer for offer, _ in winners]
        self._agree(offers, "two versions were signed in one second")
        signed = winners[0][1]
        also = [offer for offer, _ in self._left if offer.id == offers[0].id]
        # First those whose copy bears that very signature.
        also.sort(
            key=lambda each: each.manifest is None or signed.signature.entry() not in each.manifest.signatures
        )
        return Choice(offers[0].id, f"signed by {signed.principal} on {signed.when}", tuple(also), signed)

    def named(self) -> Choice | None:
        """What the peers say that the user or the settings name."""
        offers = [offer for offer, _ in self._left if offer.how.is_named]
        if not offers:
            return None
        self._agree(offers, "the named peers disagree about it")
        who = ", ".join(offer.address for offer in offers[:_SHOWN])
        return Choice(
            offers[0].id, f"{who} {'says' if len(offers) == 1 else 'say'} so, named by you", tuple(offers)
        )

    def person(self, ask: Ask | None) -> Choice:
        """What a person takes of what only strangers offer."""
        offers = [offer for offer, _ in self._left]
        if not offers:
            raise self.error("no version of it that is offered can be taken")
        self._agree(offers, "the machines on this network disagree about it")
        first = offers[0]
        if ask is not None and ask(first.id, offers):
            return Choice(first.id, "taken by you", tuple(offers))
        who = ", ".join(offer.address for offer in offers[:_SHOWN])
        raise TrustError(
            f"{self._ref}: only {who} offers it ({first.id.hex()}), which nobody here has named or signed",
            hint=f"if that is the one: diachunk fetch {first.id.hex()} --peer {first.address}",
        )

    def _agree(self, offers: Sequence[Offer], what: str) -> None:
        """Raises TrustError, with who says what, unless all offers are of one id."""
        if len({offer.id for offer in offers}) > 1:
            said = [f"{offer.address} offers {offer.id.hex()}" for offer in offers]
            raise self.error(what, said, f"diachunk fetch {offers[0].id.hex()} --peer {offers[0].address}")

    def error(self, what: str, said: Sequence[str] = (), command: str = "") -> TrustError:
        lines = [*said, *self.refused]
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        hint = f"ask which is right, then take that one by its id: {command}" if command else ""
        return TrustError(f"{self._ref}: {what}: {'; '.join(lines[:_SHOWN])}{more}", hint=hint)
