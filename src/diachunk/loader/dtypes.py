"""Names of dtypes, and which tensor is cast to what."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

import torch

from diachunk.errors import LoadError, UsageError

_SHORT = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
    "half": "float16",
    "fp32": "float32",
    "f32": "float32",
    "float": "float32",
    "fp64": "float64",
    "f64": "float64",
    "double": "float64",
    "fp8": "float8_e4m3fn",
    "f8_e4m3": "float8_e4m3fn",
    "f8_e5m2": "float8_e5m2",
    "c64": "complex64",
    "c128": "complex128",
}
_FORMAT = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_x2",
}
"""safetensors' words. F6 has no counterpart in torch."""
_PACKED = "float4_e2m1fn_x2"


def parse_dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype that was asked for: a torch.dtype, its name, or a short name such as "bf16".

    Raises:
        UsageError: no such dtype, or none that weights can be cast to.
    """
    if given is None or given == "":
        return None
    dtype: object = given
    if isinstance(given, str):
        name = given.strip().lower().removeprefix("torch.")
        dtype = getattr(torch, _SHORT.get(name, name), None)
    if not isinstance(dtype, torch.dtype):
        raise UsageError(
            f"{given!r:.60} is no dtype", hint="such as bf16, fp16 or fp32; none keeps the file's"
        )
    if not (dtype.is_floating_point or dtype.is_complex) or short(dtype) == _PACKED:
        raise UsageError(f"weights are not cast to {short(dtype)}", hint="such as bf16, fp16 or fp32")
    return dtype


def short(dtype: torch.dtype) -> str:
    """ "bfloat16", as people know it."""
    return str(dtype).removeprefix("torch.")


def to_format(dtype: torch.dtype) -> str:
    """ "BF16", as safetensors says; its name in torch where the format has no such dtype."""
    name = short(dtype)
    return next((word for word, torchs in _FORMAT.items() if torchs == name), name)


def of_format(word: str, name: str) -> torch.dtype:
    """The torch dtype of a safetensors word.

    Raises:
        LoadError: this torch has none.
    """
    dtype = getattr(torch, _FORMAT.get(word, ""), None)
    if not isinstance(dtype, torch.dtype):
        raise LoadError(
            f"tensor {name!r:.80} is of dtype {word!r:.20}, which torch {torch.__version__} has not"
        )
    return dtype


def shape_of(dtype: torch.dtype, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that torch gives a tensor of a file: of four-bit floats, it has two in an element."""
    if short(dtype) != _PACKED or not shape:
        return shape
    return (*shape[:-1], shape[-1] // 2)


def cast_of(own: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    """What a tensor becomes. Integers, bools, packed values and complex numbers asked for as real ones stay."""
    if wanted is None or own == wanted or short(own) == _PACKED:
        return own
    if own.is_complex:
        return wanted if wanted.is_complex else own
    return wanted if own.is_floating_point and wanted.is_floating_point else own


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether a tensor's name is, or matches, one of these."""
    names, pattern = _compiled(tuple(globs))
    return name in names or (pattern is not None and pattern.match(name) is not None)


@lru_cache(maxsize=64)
def _compiled(globs: tuple[str, ...]) -> tuple[frozenset[str], re.Pattern[str] | None]:
    """The names among them, and one pattern for the rest: a program may list every tensor of a large model."""
    patterns = [translate(glob) for glob in globs if any(sign in glob for sign in "*?[")]
    return frozenset(globs), re.compile("|".join(patterns)) if patterns else None
