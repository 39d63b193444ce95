"""Rollback: a version that was replaced is not taken again for the name that it had. Pure."""

from __future__ import annotations

from diachunk.api.trust.signers import Signed, moment
from diachunk.digest import Digest
from diachunk.store.marks import Seen


def why_older(manifest_id: Digest, signed: Signed | None, seen: Seen | None) -> str:
    """Why a version is not to be taken after the one that was seen, in words that follow its name; "" if it may be.

    One that bears no signature may be any old version with the signature cut off.
    """
    if seen is None or manifest_id == seen.manifest_id:
        return ""
    later = f"{seen.manifest_id.hex()[:16]}…, signed on {moment(seen.serial)}, was seen before"
    if signed is None:
        return f"is not signed by anybody trusted, and {later}"
    if signed.serial < seen.serial:
        return f"is an older version, signed by {signed.principal} on {signed.when}: {later}"
    return ""
