"""The grammar of names: checkpoints, revisions, components, chunking rules, and NAME[@REV] as typed."""

from __future__ import annotations

import re

from diachunk.errors import UsageError
from diachunk.limits import DEFAULT
from diachunk.manifest.model import DEFAULT_REVISION
from diachunk.manifest.strict_json import quote

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})?")
_WORD = re.compile(_PART)
_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")


def _fits(grammar: re.Pattern[str], text: str, chars_max: int) -> bool:
    # ".." is refused although the grammar could spell it: names become parts of file names.
    return len(text) <= chars_max and ".." not in text and grammar.fullmatch(text) is not None


def is_name(text: str, chars_max: int = DEFAULT.name_chars_max) -> bool:
    """Whether `text` can name a checkpoint: `dia`, `nari-labs/dia-1.6b`."""
    return _fits(_NAME, text, chars_max)


def is_revision(text: str, chars_max: int = DEFAULT.name_chars_max) -> bool:
    """Whether `text` can be a revision: a name without "/"."""
    return _fits(_WORD, text, chars_max)


def is_component(text: str, chars_max: int = DEFAULT.name_chars_max) -> bool:
    """Whether `text` can name a component: a name without "/", or "" for the unnamed one."""
    return text == "" or _fits(_WORD, text, chars_max)


def is_rule(text: str, chars_max: int = DEFAULT.name_chars_max) -> bool:
    """Whether `text` can name a chunking rule: `tensor-4m/1`."""
    return _fits(_RULE, text, chars_max)


def parse_ref(text: str) -> tuple[str, str]:
    """Reads NAME[@REV] as a user types it; the revision is "main" if left out.

    Raises:
        UsageError: not of that form.
    """
    name, at, revision = text.partition("@")
    if not at:
        revision = DEFAULT_REVISION
    if not is_name(name):
        raise UsageError(
            f"{quote(text)} is not NAME[@REV]",
            hint="a name is letters, digits, '.', '_' and '-', at most one '/', such as nari-labs/dia-1.6b",
        )
    if not is_revision(revision):
        raise UsageError(
            f"{quote(text)}: {quote(revision)} is not a revision",
            hint="a revision is letters, digits, '.', '_' and '-', such as main",
        )
    return name, revision
