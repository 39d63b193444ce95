"""What a source is given when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from diachunk.errors import UsageError
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


def split_url(url: str) -> SplitResult:
    """Splits a URL that a user or a manifest wrote.

    Raises:
        UsageError: it is none: an unclosed bracket, a port that is no number.
    """
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError as error:
        raise UsageError(f"{url}: not a URL ({error})") from error
    return split
