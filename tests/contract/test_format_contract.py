"""Every reader against the one suite, with the example of docs/formats.md; the suite against bad readers."""

from __future__ import annotations

import io
import re
import struct
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from diachunk.formats.base import FormatError, FormatReader, RandomAccess, TensorSpan
from diachunk.formats.gguf import Gguf
from diachunk.formats.registry import _BUILTIN
from diachunk.formats.safetensors import Safetensors
from diachunk.formats.torch_zip import TorchZip
from diachunk.testing.format_contract import FormatContract
from format_files import GgufTensor, Zip, ZipEntry, entry, gguf_of, pair, safetensors_of, text

GUIDE = Path(__file__).parents[2] / "docs" / "formats.md"


class TestSafetensors(FormatContract):
    def make_reader(self) -> FormatReader:
        return Safetensors()

    def valid_files(self) -> Mapping[str, bytes]:
        header = {"__metadata__": {"format": "pt"}, "a": entry(0, 8, "F32", [2]), "b\u00e9": entry(8, 20)}
        return {
            "model.safetensors": safetensors_of(header | {"none": entry(20, 20)}, bytes(range(20))),
            "empty.safetensors": safetensors_of("{}"),
        }

    def tensors_inside(self) -> Mapping[str, Mapping[str, bytes]]:
        data = bytes(range(20))
        return {
            "model.safetensors": {"a": data[:8], "b\u00e9": data[8:], "none": b""},
            "empty.safetensors": {},
        }


class TestTorchZip(FormatContract):
    def make_reader(self) -> FormatReader:
        return TorchZip()

    def valid_files(self) -> Mapping[str, bytes]:
        buffer = io.BytesIO()
        torch.save({"a": torch.arange(30), "b": torch.empty(0)}, buffer)
        entries = [ZipEntry(b"a/data/%d" % index, b"x" * index, sizes_in_zip64=True) for index in range(3)]
        return {
            "model.pth": buffer.getvalue(),
            "wide.pth": Zip(entries, zip64=True, saturated=True).build(),
            "old.pth": Zip([ZipEntry(b"a/data/0", b"abc")], comment=b"hello").build(),
        }


class TestGguf(FormatContract):
    def make_reader(self) -> FormatReader:
        return Gguf()

    def valid_files(self) -> Mapping[str, bytes]:
        pairs = [
            pair(b"general.alignment", 4, struct.pack("<I", 64)),
            pair(b"tokens", 9, struct.pack("<IQ", 8, 3) + text(b"a") + text(b"bc") + text(b"")),
            pair(b"nested", 9, struct.pack("<IQIQ", 9, 1, 4, 2) + bytes(8)),
        ]
        tensors = [
            GgufTensor(b"a", 0, (3, 2), 0),
            GgufTensor(b"b", 2, (64,), 64),
            GgufTensor(b"c", 999, (1,), 128),
        ]
        return {
            "model.gguf": gguf_of(tensors, bytes(140), pairs, 64),
            "vocab.gguf": gguf_of([], pairs=pairs[1:], version=2),
        }


def code_of_the_guide() -> types.SimpleNamespace:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    return types.SimpleNamespace(**names)


class TestTheExampleOfTheGuide(FormatContract):
    guide = code_of_the_guide()

    def make_reader(self) -> FormatReader:
        reader: FormatReader = self.guide.Npy()
        return reader

    def valid_files(self) -> Mapping[str, bytes]:
        files: Mapping[str, bytes] = self.guide.TestNpy().valid_files()
        return files

    def tensors_inside(self) -> Mapping[str, Mapping[str, bytes]]:
        inside: Mapping[str, Mapping[str, bytes]] = self.guide.TestNpy().tensors_inside()
        assert inside["weights.npy"]["array"] == struct.pack("<100q", *range(100))
        return inside


def test_every_built_in_reader_is_put_to_the_suite() -> None:
    suites: list[FormatContract] = [TestSafetensors(), TestTorchZip(), TestGguf()]
    assert [suite.make_reader().name for suite in suites] == [reader.name for reader in _BUILTIN]


class Simple:
    """A reader of "SMPL", a 4-byte length, and that many bytes of tensor: the base of the bad ones."""

    name = "simple"

    def claims(self, path: str, head: bytes) -> bool:
        return head.startswith(b"SMPL")

    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        head = file.read_at(0, 8)
        if len(head) < 8 or not head.startswith(b"SMPL"):
            raise FormatError("no SMPL")
        size = int.from_bytes(head[4:], "little")
        if 8 + size > file.size:
            raise FormatError("too long")
        return [TensorSpan("x", "", (), 8, size)]


class Careless(Simple):
    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        (size,) = struct.unpack("<I", file.read_at(4, 4))
        return [TensorSpan("x", "", (), 8, min(size, file.size - 8))]


class Unbounded(Simple):
    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        head = file.read_at(0, 8)
        if len(head) < 8:
            raise FormatError("no SMPL")
        return [TensorSpan("x", "", (), 8, int.from_bytes(head[4:], "little"))]


class Greedy(Simple):
    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        spans = super().tensors(file)
        _ = bytes(min(spans[0].size, 1 << 26))
        return spans


class Gulping(Simple):
    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        spans = super().tensors(file)
        file.read_at(0, file.size)
        return spans


class Remembering(Simple):
    def __init__(self) -> None:
        self.seen = 0

    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        self.seen += 1
        return [TensorSpan(f"x{self.seen}", "", (), span.offset, span.size) for span in super().tensors(file)]


class Unsorted(Simple):
    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        return [*super().tensors(file), TensorSpan("y", "", (), 0, 4)]


class Picky(Simple):
    def claims(self, path: str, head: bytes) -> bool:
        return head[3] == ord("L")


class Shifted(Simple):
    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        return [TensorSpan("x", "", (), span.offset - 1, span.size) for span in super().tensors(file)]


class Lazy(Simple):
    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        return [TensorSpan("x", "", (), 0, file.size)]


class Misnamed(Simple):
    name = "My Format/2"


class Suite(FormatContract):
    def __init__(self, reader: Callable[[], FormatReader]) -> None:
        self.make_reader = reader  # type: ignore[method-assign] # The suite under test, with any reader.

    def valid_files(self) -> Mapping[str, bytes]:
        return {"a.smpl": b"SMPL" + struct.pack("<I", 50) + bytes(range(60))}

    def tensors_inside(self) -> Mapping[str, Mapping[str, bytes]]:
        return {"a.smpl": {"x": bytes(range(50))}}


def run(suite: FormatContract) -> None:
    for name in dir(suite):
        if name.startswith("test_"):
            getattr(suite, name)()


def test_the_suite_accepts_a_good_reader() -> None:
    run(Suite(Simple))


@pytest.mark.parametrize(
    "reader", [Careless, Unbounded, Greedy, Gulping, Remembering, Unsorted, Picky, Shifted, Lazy, Misnamed]
)
def test_the_suite_refuses_a_bad_reader(reader: Callable[[], FormatReader]) -> None:
    with pytest.raises((AssertionError, FormatError, IndexError)):
        run(Suite(reader))
