"""Where several texts or paths may be given, a single one is one: a str is an iterable of its letters as well, which
neither Python nor a type checker objects to, and `publish("/models")` would begin with all of "/".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeAlias

Several: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One text or path, or several."""


def several(given: Several) -> tuple[str, ...]:
    """What a caller gave, as texts."""
    if isinstance(given, str | os.PathLike):
        return (os.fspath(given),)
    return tuple(os.fspath(each) for each in given)
