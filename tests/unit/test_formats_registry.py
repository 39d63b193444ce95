from __future__ import annotations

import errno
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from diachunk.chunking.cuts import rule_for
from diachunk.formats import registry
from diachunk.formats.base import BytesAccess, FileAccess, FormatError, FormatReader, RandomAccess, TensorSpan
from diachunk.formats.registry import GROUP, Layout, find_tensors, readers
from format_files import GgufTensor, Zip, ZipEntry, entry, gguf_of, safetensors_of

GOOD = safetensors_of({"x": entry(0, 3)}, b"abc")
FAKE = b"FAKE" + bytes(96)
BUILT_IN = ["safetensors", "torch-zip", "gguf"]


class Fake:
    """A plug-in for files that start with FAKE, or with what it is told; it answers as it is told."""

    def __init__(self, spans: Callable[[RandomAccess], list[TensorSpan]], name: str, magic: bytes) -> None:
        self.name = name
        self._spans = spans
        self._magic = magic

    def claims(self, path: str, head: bytes) -> bool:
        return head.startswith(self._magic)

    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        return self._spans(file)


class Installed:
    """Stands for the entry points of the machine."""

    def __init__(self) -> None:
        self.factories: dict[str, Callable[[], FormatReader]] = {}
        self.entries: list[EntryPoint] = []
        self.looked_up = 0

    def add(
        self,
        spans: Callable[[RandomAccess], list[TensorSpan]] = lambda file: [],
        name: str = "fake",
        magic: bytes = b"FAKE",
        calls_itself: str = "",
    ) -> None:
        self.add_factory(name, lambda: Fake(spans, calls_itself or name, magic))

    def add_factory(self, name: str, factory: Callable[[], FormatReader]) -> None:
        key = f"factory{len(self.entries)}"
        self.factories[key] = factory
        self.entries.append(EntryPoint(name, f"some_plugin:{key}", GROUP))

    def list(self, *, group: str) -> EntryPoints:
        assert group == GROUP
        self.looked_up += 1
        return EntryPoints(self.entries)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    machine = Installed()

    def load(entry: EntryPoint) -> object:
        return machine.factories[entry.value.partition(":")[2]]

    monkeypatch.setattr(registry, "entry_points", machine.list)
    monkeypatch.setattr(EntryPoint, "load", load)
    registry._plugins.cache_clear()
    yield machine
    registry._plugins.cache_clear()


def span(offset: int, size: int, name: str = "x") -> TensorSpan:
    return TensorSpan(name, "", (), offset, size)


def find(data: bytes, path: str = "blob") -> Layout:
    return find_tensors(path, BytesAccess(data))


@pytest.mark.parametrize(
    ("reader", "data"),
    [
        ("safetensors", GOOD),
        ("torch-zip", Zip([ZipEntry(b"a/data/0", b"abc")]).build()),
        ("gguf", gguf_of([GgufTensor(b"x", 0, (1,), 0)], b"abcd")),
    ],
)
def test_a_built_in_format_is_found_under_any_name(installed: Installed, reader: str, data: bytes) -> None:
    for path in ("blob", "model.safetensors", "model.pth", "a.gguf"):
        layout = find(data, path)
        assert (layout.reader, layout.builtin, len(layout.spans)) == (reader, True, 1)
        assert rule_for(layout) == "tensor-4m/1"


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04broken", b"GGUF", GOOD[:-1], FAKE])
def test_a_malformed_or_unknown_file_has_a_plain_layout(installed: Installed, data: bytes) -> None:
    assert find(data, "model.safetensors") == Layout("", (), True)
    assert rule_for(find(data)) == "tensor-4m/1"


def test_a_plugin_reads_its_files_and_its_name_is_in_the_rule(installed: Installed) -> None:
    installed.add(lambda file: [span(4, 9), span(50, 50)])
    assert find(FAKE) == Layout("fake", (span(4, 9), span(50, 50)), False)
    assert rule_for(find(FAKE)) == "tensor-4m/1+fake"


def test_plugins_come_after_the_built_in_readers_by_name(installed: Installed) -> None:
    installed.add(name="zzz")
    installed.add(name="aaa")
    assert [reader.name for reader in readers()] == [*BUILT_IN, "aaa", "zzz"]


def test_a_plugin_cannot_take_a_file_from_a_built_in_reader(installed: Installed) -> None:
    installed.add(lambda file: [], magic=b"")
    assert find(GOOD).reader == "safetensors"
    assert find(GOOD[:-1]).reader == "fake"


def test_a_plugin_may_read_zip_files_in_which_pytorch_has_no_tensors(installed: Installed) -> None:
    other = Zip([ZipEntry(b"weights.npy", b"abc")]).build()
    assert find_tensors("", BytesAccess(other)) == Layout("torch-zip", ())
    span = TensorSpan("x", "", (), 0, 3)
    installed.add(lambda file: [], name="a-none", magic=b"PK")
    installed.add(lambda file: [span], name="npz", magic=b"PK")
    registry._plugins.cache_clear()
    assert find_tensors("", BytesAccess(other)) == Layout("npz", (span,), builtin=False)
    assert find_tensors("", BytesAccess(Zip([ZipEntry(b"a/data/0", b"abc")]).build())).reader == "torch-zip"


def test_plugins_are_looked_up_once(installed: Installed) -> None:
    assert readers() == readers()
    assert installed.looked_up == 1


def test_plugins_are_not_looked_up_for_a_file_that_a_built_in_reader_reads(installed: Installed) -> None:
    find(GOOD)
    assert installed.looked_up == 0


def test_a_plugin_cannot_take_a_built_in_name(installed: Installed, caplog: pytest.LogCaptureFixture) -> None:
    installed.add(lambda file: [], name="safetensors", magic=b"")
    assert [reader.name for reader in readers()] == BUILT_IN
    assert "built in" in caplog.text


def test_our_own_entry_points_are_neither_doubled_nor_warned_about(
    installed: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    installed.entries.append(EntryPoint("gguf", "diachunk.formats.gguf:Gguf", GROUP))
    assert [reader.name for reader in readers()] == BUILT_IN
    assert not caplog.records


def test_of_two_plugins_of_one_name_the_first_by_module_is_taken(
    installed: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    installed.add(lambda file: [span(1, 1)])
    installed.add(lambda file: [span(2, 2)])
    installed.entries.reverse()
    assert find(FAKE).spans == (span(1, 1),)
    assert "two plug-ins" in caplog.text


@pytest.mark.parametrize("name", ["Fake", "a b", "", "x" * 33, "a/b", "fäke"])
def test_a_plugin_of_an_unusable_name_is_left_out(
    installed: Installed, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    installed.add(name=name)
    assert [reader.name for reader in readers()] == BUILT_IN
    assert "registered as" in caplog.text


def test_a_plugin_that_calls_itself_otherwise_is_left_out(installed: Installed) -> None:
    installed.add(calls_itself="gguf")
    assert [reader.name for reader in readers()] == BUILT_IN


def test_a_plugin_that_cannot_be_loaded_is_left_out(
    installed: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> FormatReader:
        raise RuntimeError("no")

    installed.add_factory("bad", fail)
    installed.entries.append(EntryPoint("gone", "some_plugin:nowhere", GROUP))
    installed.add(name="fine")
    assert [reader.name for reader in readers()] == [*BUILT_IN, "fine"]
    assert len(caplog.records) == 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.parametrize(
    "spans",
    [
        [span(50, 51)],
        [span(-1, 3)],
        [span(4, -1)],
        [span(4, 10), span(13, 3)],
        [span(50, 1), span(4, 1)],
        [TensorSpan("x", "", (), 4.0, 1)],  # type: ignore[arg-type]
        [TensorSpan(7, "", (), 4, 1)],  # type: ignore[arg-type]
        ["x"],
        None,
    ],
)
def test_spans_of_a_bad_plugin_are_not_used(installed: Installed, spans: list[TensorSpan]) -> None:
    installed.add(lambda file: spans)
    assert find(FAKE) == Layout()


@pytest.mark.parametrize("error", [FormatError("no"), ZeroDivisionError(), RecursionError(), KeyError("x")])
def test_the_next_reader_is_asked_when_one_fails(installed: Installed, error: Exception) -> None:
    def fail(file: RandomAccess) -> list[TensorSpan]:
        raise error

    installed.add(fail, name="a")
    installed.add(lambda file: [span(4, 9)], name="b")
    assert find(FAKE).reader == "b"


def test_only_a_failure_that_is_no_format_error_is_warned_about(
    installed: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: RandomAccess) -> list[TensorSpan]:
        raise FormatError("malformed")

    installed.add(refuse)
    find(FAKE)
    find(GOOD[:-1])
    assert not caplog.records
    find(FAKE.replace(b"FAKE", b"CRSH"))
    installed.add(lambda file: [1 // 0], name="crash", magic=b"CRSH")  # type: ignore[list-item]
    registry._plugins.cache_clear()
    find(FAKE.replace(b"FAKE", b"CRSH"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class Broken:
    """A file whose disk fails after its first 16 bytes."""

    size = 100

    def read_at(self, offset: int, size: int) -> bytes:
        if offset + size > 16:
            raise OSError(errno.EIO, "Input/output error")
        return FAKE[offset : offset + size]


def test_a_disk_error_is_raised_even_if_a_reader_swallows_it(installed: Installed) -> None:
    def swallow(file: RandomAccess) -> list[TensorSpan]:
        try:
            file.read_at(50, 1)
        except OSError:
            pass
        return []

    installed.add(swallow)
    with pytest.raises(OSError, match="Input/output"):
        find_tensors("x", Broken())


def test_a_disk_error_is_raised_without_a_warning(
    installed: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    def read(file: RandomAccess) -> list[TensorSpan]:
        file.read_at(50, 1)
        return []

    installed.add(read)
    with pytest.raises(OSError, match="Input/output"):
        find_tensors("x", Broken())
    assert not caplog.records


def test_a_plugins_own_os_error_is_its_failure(installed: Installed) -> None:
    def read(file: RandomAccess) -> list[TensorSpan]:
        raise FileNotFoundError("tables.json")

    installed.add(read)
    assert find(FAKE) == Layout()


def test_a_lack_of_memory_is_not_mistaken_for_a_malformed_file(installed: Installed) -> None:
    def read(file: RandomAccess) -> list[TensorSpan]:
        raise MemoryError

    installed.add(read)
    with pytest.raises(MemoryError):
        find(FAKE)


def test_a_file_on_disk_is_read(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(GOOD)
    with FileAccess(tmp_path / "x") as file:
        assert find_tensors("x", file) == find(GOOD)


def test_importing_the_readers_imports_nothing_heavy() -> None:
    code = "import sys, diachunk.formats, diachunk.chunking.cuts; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "safetensors", "gguf", "hypothesis", "pytest"} & set(run.stdout.split())
