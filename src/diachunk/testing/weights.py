"""Seeded random tensor values: the same bytes on every machine, Python and numpy version.

Random bits come from BLAKE3 in XOF mode, not from numpy, whose streams may change between versions.
Weights follow a normal distribution, so that tools meet the exponents that real weights have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DTYPE_BYTES = {
    "F64": 8,
    "I64": 8,
    "F32": 4,
    "I32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes per element of the dtypes that can be generated, under their safetensors names."""

STANDARD_DEVIATION = 0.02
_BLOCK_VALUES = 1 << 18  # part of the byte stream: changing it changes every generated tensor
_LOW_BITS = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor to generate.

    Attributes:
        name: its name in the container.
        dtype: a key of `DTYPE_BYTES`.
        shape: its dimensions; () is a scalar.
        source: the name its values are drawn under (a renamed tensor keeps its bytes); "" means `name`.
        generation: another number gives other values under the same name.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: str = ""
    generation: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"{self.name}: no such dtype: {self.dtype}")

    @property
    def value_count(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.value_count * DTYPE_BYTES[self.dtype]

    @property
    def seed_name(self) -> str:
        return self.source or self.name


def tensor_blocks(spec: TensorSpec, *, seed: str, generation: int = 0) -> Iterator[memoryview]:
    """Yields the tensor's bytes, little-endian and row-major, in blocks of at most 2 MiB.

    Args:
        generation: added to the tensor's own.
    """
    stream = blake3(f"{seed}/{spec.seed_name}/{spec.generation + generation}".encode())
    random_bytes_per_value = 3 if spec.dtype in ("F32", "F64") else DTYPE_BYTES[spec.dtype]
    for first in range(0, spec.value_count, _BLOCK_VALUES):
        count = min(_BLOCK_VALUES, spec.value_count - first)
        bits = stream.digest(length=count * random_bytes_per_value, seek=first * random_bytes_per_value)
        yield _values(spec.dtype, bits, count)


def _values(dtype: str, bits: bytes, count: int) -> memoryview:
    import numpy as np

    match dtype:
        case "F32":
            return _float32(bits, count).data.cast("B")
        case "F64":
            wide: npt.NDArray[np.float64] = _float32(bits, count).view("<f4").astype("<f8")
            return wide.data.cast("B")
        case "BF16" | "F16":
            halves: npt.NDArray[np.uint16] = _half_table(dtype)[np.frombuffer(bits, "<u2")]
            return halves.data.cast("B")
        case "BOOL":
            truths: npt.NDArray[np.uint8] = np.frombuffer(bits, "u1") & np.uint8(1)
            return truths.data
        case _:
            return memoryview(bits)


def _float32(bits: bytes, count: int) -> npt.NDArray[np.uint32]:
    """Exact integer operations alone: a table look-up by 16 random bits, and 8 more ORed into the mantissa.

    Multiplying, adding or calling log() on each value would make the last bit depend on the vector unit and
    the C library. The table leaves the low mantissa bits empty; filled, equal look-ups differ.
    """
    import numpy as np

    words: npt.NDArray[np.uint32] = _float32_table()[np.frombuffer(bits, "<u2", count)]
    words |= np.frombuffer(bits, "u1", count, offset=2 * count)
    return words


@cache
def _float32_table() -> npt.NDArray[np.uint32]:
    """The inverse normal CDF at 65,536 points as float32 words whose low 8 bits are zero.

    inv_cdf() calls the C library's log(), which may differ in the last of 52 bits between machines. Only 15
    bits are kept, so that a differing table entry is a one-in-a-million accident; a test pins the bytes.
    """
    import numpy as np

    normal = NormalDist(0.0, STANDARD_DEVIATION)
    words = np.array([normal.inv_cdf((i + 0.5) / 65536) for i in range(65536)], "<f4").view("<u4")
    words &= 0x1_0000_0000 - (1 << _LOW_BITS)
    return words


@cache
def _half_table(dtype: str) -> npt.NDArray[np.uint16]:
    words = _float32_table()
    if dtype == "BF16":
        return (words >> 16).astype("<u2")
    return words.view("<f4").astype("<f2").view("<u2")
