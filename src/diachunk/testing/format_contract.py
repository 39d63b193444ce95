"""The suite that every format reader must pass, built-in or plug-in.

Inherit in a pytest file, name a reader and some valid files, and the tests run:

    class TestNpy(FormatContract):
        def make_reader(self) -> FormatReader:
            return Npy()

        def valid_files(self) -> Mapping[str, bytes]:
            return {"weights.npy": ...}

        def tensors_inside(self) -> Mapping[str, Mapping[str, bytes]]:
            return {"weights.npy": {"array": ...}}

Give it files of a few kilobytes that use the format's corners (no tensors, an empty tensor, long names): the
suite derives some thousand broken files from each.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator, Mapping

from diachunk.formats.base import BytesAccess, FormatError, FormatReader, RandomAccess, TensorSpan
from diachunk.formats.registry import NAME
from diachunk.formats.spans import HEADER_BYTES_MAX, check

HEAD_BYTES = 16
_CUTS = 200
_MUTANTS = 300
_HUGE_BYTES = 1 << 62
_EDGE_BYTES = 96
_CLAIMS = (b"\xff\xff\xff\x7f", b"\xff" * 4, b"\xff" * 7 + b"\x7f", b"\xff" * 8, b"\x00\xe1\xf5\x05")
"""Integers that a header may claim: the largest of 32 and 64 bits, signed and not, and 100,000,000."""


class SparseAccess:
    """A file of any claimed size: zeros but for its first and last bytes. Records what is asked of it.

    Attributes:
        largest_read_bytes: the most that one `read_at` asked for.
    """

    def __init__(self, size: int, head: bytes = b"", tail: bytes = b"") -> None:
        self._size = size
        self._head = head
        self._tail = tail
        self.largest_read_bytes = 0

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self._size - offset))
        self.largest_read_bytes = max(self.largest_read_bytes, size)
        if size > HEADER_BYTES_MAX:
            raise AssertionError(f"asked for {size} bytes at once; the limit is {HEADER_BYTES_MAX}")
        data = bytearray(size)
        for start, piece in ((0, self._head), (self._size - len(self._tail), self._tail)):
            begin, end = max(offset, start), min(offset + size, start + len(piece))
            if begin < end:
                data[begin - offset : end - offset] = piece[begin - start : end - start]
        return bytes(data)


class FormatContract:
    """Inherit, override the hooks, and pytest collects the tests."""

    def make_reader(self) -> FormatReader:
        """Returns a new reader."""
        raise NotImplementedError

    def valid_files(self) -> Mapping[str, bytes]:
        """Returns small well-formed files, at least one with tensors: file name -> content."""
        raise NotImplementedError

    def tensors_inside(self) -> Mapping[str, Mapping[str, bytes]]:
        """Returns what is in some of those files: file name -> name of a tensor -> its bytes. Only who wrote a file
        knows that; a reader whose spans are merely possible passes everything else."""
        return {}

    def test_its_name_may_stand_in_a_manifest(self) -> None:
        name = self.make_reader().name
        assert NAME.fullmatch(name), f"{name!r} is no name for a reader: {NAME.pattern}"

    def test_every_tensor_lies_at_its_span(self) -> None:
        files = self.valid_files()
        for path, tensors in self.tensors_inside().items():
            spans = self.make_reader().tensors(BytesAccess(files[path]))
            found = {span.name: files[path][span.offset : span.end] for span in spans}
            assert sorted(found) == sorted(tensors), path
            for name, data in tensors.items():
                assert found[name] == data, f"{path}: {name} is not what lies at its span"

    def test_a_valid_file_is_claimed_and_read(self) -> None:
        reader = self.make_reader()
        found = 0
        for path, data in self.valid_files().items():
            assert reader.claims(path, data[:HEAD_BYTES]) is True, path
            found += len(_read(reader, BytesAccess(data), path) or ())
        assert found, "no valid file has a tensor: this suite would prove nothing"

    def test_spans_are_sorted_inside_the_file_and_disjoint(self) -> None:
        for data in self.valid_files().values():
            check(self.make_reader().tensors(BytesAccess(data)), len(data))

    def test_the_same_bytes_give_the_same_spans_whatever_was_read_before(self) -> None:
        files = list(self.valid_files().items())
        fresh = {path: self.make_reader().tensors(BytesAccess(data)) for path, data in files}
        reader = self.make_reader()
        for path, data in files + files[::-1]:
            _read(reader, BytesAccess(data[: len(data) // 2]), path)
            reader.claims("elsewhere", b"")
            assert reader.tensors(BytesAccess(data)) == fresh[path], path

    def test_claims_answers_any_path_and_head(self) -> None:
        reader, rng = self.make_reader(), random.Random(1)
        heads = [data[:size] for data in self.valid_files().values() for size in range(HEAD_BYTES + 1)]
        heads += [rng.randbytes(rng.randrange(HEAD_BYTES + 1)) for _ in range(_MUTANTS)]
        for head in heads:
            for path in ("", ".", "a", "a.b/c", "\ud800", *self.valid_files()):
                assert reader.claims(path, head) in (True, False)

    def test_a_truncated_file_is_refused_or_read_within_its_bounds(self) -> None:
        for path, data in self.valid_files().items():
            for cut in sorted({len(data) * step // _CUTS for step in range(_CUTS)}):
                _read(self.make_reader(), BytesAccess(data[:cut]), f"{path} cut to {cut} bytes")

    def test_changed_bytes_are_refused_or_read_within_the_file(self) -> None:
        for path, data in self.valid_files().items():
            for seed in range(_MUTANTS if data else 0):
                mutant = _mutant(data, random.Random(seed))
                _read(self.make_reader(), BytesAccess(mutant), f"{path} changed by seed {seed}")

    def test_a_gigantic_claim_is_not_allocated(self) -> None:
        for path, data in self.valid_files().items():
            for what, file in _giants(data):
                tracemalloc.start()
                try:
                    _read(self.make_reader(), file, f"{path}, {what}")
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                bound = 4 * file.largest_read_bytes + 16 * 1024 * 1024
                assert peak <= bound, f"{path}, {what}: {peak} bytes allocated, of {bound}"


def _read(reader: FormatReader, file: RandomAccess, what: str) -> list[TensorSpan] | None:
    """Reads and checks a file that may be malformed: FormatError is an answer, nothing else is."""
    try:
        spans = reader.tensors(file)
    except FormatError:
        return None
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} instead of FormatError: {error}") from error
    try:
        check(spans, file.size)
    except FormatError as error:
        raise AssertionError(f"{what}: {error}") from error
    return spans


def _mutant(data: bytes, rng: random.Random) -> bytes:
    """Flips bits and overwrites bytes, mostly near the ends, where headers are."""
    mutant = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        near = rng.choice((len(data), min(len(data), 64), min(len(data), 512)))
        at = rng.choice((rng.randrange(near), len(data) - 1 - rng.randrange(near)))
        mutant[at] = rng.choice((mutant[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 0xFF))
    return bytes(mutant)


def _giants(data: bytes) -> Iterator[tuple[str, SparseAccess]]:
    """The file grown to 4 EiB by zeros in the middle, with one integer near an end made huge.

    A reader that starts at the front sees a valid head with a huge body, one that starts at the end a valid
    tail behind a huge file.
    """
    edge = min(len(data), _EDGE_BYTES)
    for size in (len(data), _HUGE_BYTES):
        for claim in _CLAIMS:
            for at in {*range(0, edge, 4), *range(max(0, len(data) - edge), len(data), 2)}:
                changed = data[:at] + claim + data[at + len(claim) :]
                half = len(changed) if size == len(data) else len(changed) // 2
                what = f"{claim.hex()} at {at}, {size} bytes"
                yield what, SparseAccess(max(size, len(changed)), changed[:half], changed[half:])
                if size == _HUGE_BYTES:
                    yield f"{what}, all ahead", SparseAccess(size, changed)
