"""What a source is given when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from diachunk.limits import DEFAULT, Limits


@dataclass(frozen=True, slots=True)
class SourceContext:
    """How far a source may go.

    Attributes:
        limits: timeouts and bounds.
        named_by_user: whether the user (command line, config) named this origin, rather than a manifest.
            Only then may it be sent credentials, be a directory, or have a private address.
    """

    limits: Limits = DEFAULT
    named_by_user: bool = True
