"""Whether a manifest from outside may be used: signed by whom, and not an older version than was seen before."""

from __future__ import annotations

import time

from diachunk.api.trust.naming import Known
from diachunk.api.trust.older import why_older
from diachunk.api.trust.signers import Signed, Signers, Verdict
from diachunk.config import Config
from diachunk.errors import TrustError
from diachunk.manifest import Manifest
from diachunk.store.catalog import Catalog


def judged(manifest: Manifest, config: Config, now: float | None = None) -> Verdict:
    """Which of a manifest's signatures holds, for the signers of the settings.

    Raises:
        TrustError: they cannot be read, or `require_signed` is set and there are none.
    """
    signers = Signers.of(config)
    if signers is None:
        if config.require_signed:
            raise TrustError(
                "require_signed is set, but nobody's signature is trusted",
                hint="name a file as allowed_signers; see docs/trust.md",
            )
        return Verdict(None, "nobody's signature is trusted here (allowed_signers)")
    return signers.judge(manifest, now)


def admit(
    manifest: Manifest,
    config: Config,
    catalog: Catalog,
    whence: str,
    *,
    by_id: bool = False,
    remember: bool = True,
    now: float | None = None,
) -> Signed | None:
    """Lets a manifest in that came from a file, a URL or another machine; to be asked before anything of it is used.

    One that a local name stands for was let in before, and stays usable.

    Args:
        whence: the file, URL or peer, for people.
        by_id: it was asked for by its id: that is what was wanted, however old. Signed it must be all the same.
        remember: note its signature and its serial in the store; off for a mere look.

    Raises:
        TrustError: it must be signed and is not, or a later version was seen before.
    """
    if catalog.ref(manifest.name, manifest.revision) == manifest.id:
        return None
    verdict = judged(manifest, config, now)
    signed = verdict.signed
    if signed is None and config.require_signed:
        raise TrustError(f"{whence}: {verdict.why}, and require_signed is set", hint=_how_to_sign(manifest))
    seen = catalog.seen(manifest.name, manifest.revision) if config.allowed_signers is not None else None
    if not by_id and (why := why_older(manifest.id, signed, seen)):
        raise TrustError(
            f"{whence}: {manifest.ref} {manifest.hex_id[:16]}… {why}",
            hint=f"to take exactly that one all the same: diachunk fetch {manifest.hex_id}",
        )
    if signed is not None and remember:
        catalog.note_seen(manifest.name, manifest.revision, signed.serial, manifest.id)
        if manifest.id in catalog.ids():
            catalog.add_signatures(manifest.id, [signed.signature])
    return signed


def known_of(name: str, revision: str, config: Config, catalog: Catalog) -> Known:
    """What this machine knows of a name, for `naming.choose` and `naming.newer`."""
    pin = config.pins.get(f"{name}@{revision}")
    trusts = config.allowed_signers is not None
    return Known(
        local=catalog.ref(name, revision),
        pin=None if pin is None else bytes.fromhex(pin),
        seen=catalog.seen(name, revision) if trusts else None,
        require_signed=config.require_signed,
        judge=lambda manifest: judged(manifest, config),
    )


def next_serial(manifest: Manifest, catalog: Catalog | None) -> int:
    """The serial to sign with: now, and later than all that were seen, also where a clock was set back."""
    seen = None if catalog is None else catalog.seen(manifest.name, manifest.revision)
    return max(int(time.time()), 0 if seen is None else seen.serial + 1)


def _how_to_sign(manifest: Manifest) -> str:
    return f"whoever published it signs it with: diachunk publish {manifest.ref} --sign KEY"
