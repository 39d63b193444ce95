"""What a person is told of a checkpoint's standing: who signed it, and whether it is private."""

from __future__ import annotations

from dataclasses import dataclass

from diachunk.api.context import Context
from diachunk.api.trust.signers import Signed, Signers
from diachunk.errors import TrustError
from diachunk.manifest import Manifest
from diachunk.manifest.signed import signatures_of


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one checkpoint.

    Attributes:
        signatures: how many it bears, whoever made them.
        signed: the latest that holds and is trusted here.
        why: why none is; "" where one is, or nobody asked for any.
        private: shared only under the lab's secret.
    """

    signatures: int
    signed: Signed | None
    why: str
    private: bool

    @property
    def words(self) -> str:
        """In one line; "" where there is nothing to say."""
        if self.signed is not None:
            return f"by {self.signed.principal} on {self.signed.when}"
        if self.why:
            return f"no: {self.why}"
        plural = "" if self.signatures == 1 else "s"
        return (
            f"{self.signatures} signature{plural}, unchecked: no allowed_signers" if self.signatures else ""
        )


def standing(manifest: Manifest, context: Context) -> Standing:
    """Never fails for what cannot be checked: that is part of the answer."""
    signed, why = None, ""
    try:
        signers = Signers.of(context.config)
        if signers is not None:
            verdict = signers.judge(manifest)
            signed, why = verdict.signed, verdict.why
    except TrustError as error:
        why = error.message
    private = context.store.catalog.is_private(manifest.id)
    return Standing(len(signatures_of(manifest)), signed, why, private)
