"""What a signature of a manifest covers, and the list of them: S1 to S5 of docs/manifest.md. Pure: who signed, and
whether the signature holds, is for OpenSSH to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from diachunk.limits import KiB
from diachunk.manifest.model import Manifest
from diachunk.manifest.strict_json import INT_MAX

KIND = "sshsig"
NAMESPACE = "diachunk"
"""ssh-keygen(1), -n: keeps a signature made for another purpose from meaning anything here."""
SIGNATURES_MAX = 16
"""So many of a manifest are looked at: each costs two processes."""
ARMOUR_CHARS_MAX = 16 * KiB
_DOMAIN = "diachunk-manifest-v1"
_ARMOUR = ("-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature, which holds only once it was checked.

    Attributes:
        serial: Unix seconds at signing; of two manifests of one name the later one counts.
        armour: what `ssh-keygen -Y sign` wrote (PROTOCOL.sshsig of OpenSSH).
    """

    serial: int
    armour: str

    def entry(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"kind": KIND, "serial": self.serial, "signature": self.armour}

    @classmethod
    def read(cls, entry: object) -> Signature | None:
        """One entry of a stranger's list; None for anything that is no SSH signature."""
        if not isinstance(entry, Mapping) or entry.get("kind") != KIND:
            return None
        serial, armour = entry.get("serial"), entry.get("signature")
        if type(serial) is not int or not 0 <= serial <= INT_MAX:
            return None
        if not isinstance(armour, str) or len(armour) > ARMOUR_CHARS_MAX or not armour.isascii():
            return None
        if not armour.startswith(_ARMOUR[0]) or not armour.rstrip().endswith(_ARMOUR[1]):
            return None
        return cls(serial, armour)


def message(manifest: Manifest, serial: int) -> bytes:
    """The bytes that are signed. Name and revision have no line breaks (M8), so it can be read one way only."""
    return f"{_DOMAIN}\n{manifest.hex_id}\n{manifest.ref}\n{serial}\n".encode()


def signatures_of(manifest: Manifest) -> tuple[Signature, ...]:
    """The SSH signatures that a manifest carries, latest first; of a list that is too long, its beginning."""
    found: list[Signature] = []
    for entry in manifest.signatures:
        signature = Signature.read(entry)
        if signature is not None and signature not in found:
            found.append(signature)
        if len(found) == SIGNATURES_MAX:
            break
    return tuple(sorted(found, key=lambda each: -each.serial))


def with_signatures(manifest: Manifest, signatures: Iterable[Signature]) -> Manifest:
    """The manifest with these in front of its own. Its id is the same."""
    entries = [each.entry() for each in signatures]
    own = [each for each in manifest.signatures if each not in entries]
    return replace(manifest, signatures=(*entries, *own)[: max(SIGNATURES_MAX, len(entries))])
