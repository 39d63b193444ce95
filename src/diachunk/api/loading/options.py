"""What load, load_into and stream have in common: their options."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from diachunk.errors import UsageError
from diachunk.loader.events import LoadListener, silent

if TYPE_CHECKING:
    import torch

Verify: TypeAlias = Literal["stamp", "always"]
Globs: TypeAlias = str | Iterable[str]


class LoadOptions(TypedDict, total=False):
    """Keyword arguments of `stream` and `load_into`; `load` explains them."""

    device: str | torch.device
    dtype: str | torch.dtype | None
    tensors: Globs | None
    keep_dtype: Globs
    verify: Verify
    progress: LoadListener
    repair: bool
    fetch: bool
    origins: Iterable[str]
    patience_s: float | None
    allow_code: bool
    home: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """The same with their defaults."""

    device: str | torch.device = "cpu"
    dtype: str | torch.dtype | None = None
    tensors: Globs | None = None
    keep_dtype: Globs = ()
    verify: Verify = "stamp"
    progress: LoadListener = silent
    repair: bool = False
    fetch: bool = False
    origins: Iterable[str] = ()
    patience_s: float | None = None
    allow_code: bool = False
    home: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.verify not in ("stamp", "always"):
            raise UsageError(f"verify={self.verify!r:.40}: there is no such way", hint='"stamp" or "always"')
