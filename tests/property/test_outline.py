"""Outlines against `decode`, over arbitrary manifests and damage; the donors found by them against all manifests."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar
from unittest import mock

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from diachunk.digest import digest_of
from diachunk.errors import ManifestError
from diachunk.manifest import ChunkList, FileEntry, Manifest, decode, encode, write
from diachunk.manifest.outline import Outline, outline
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.donors import find_donors
from diachunk.sources.local import LocalFiles
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.store.extents import read_claims
from diachunk.store.files import Files, regular
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store
from property.test_manifest import manifests
from store_files import BLOCK, chunk_list, fill, manifest_of
from store_files import write as write_chunks

T = TypeVar("T")
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def facts(known: Manifest | Outline) -> object:
    """What an outline says but for the id, of either."""
    components = [
        (each.name, [(file.path, file.size, file.blake3) for file in each.files]) for each in known.components
    ]
    return known.name, known.revision, components


def tried(call: Callable[[], T]) -> T | str:
    """The result, or what the refusal says."""
    try:
        return call()
    except ManifestError as error:
        return str(error)


# --- outlines ----------------------------------------------------------------------------------------------


@given(manifests())
@unhurried
def test_an_outline_agrees_with_what_was_encoded(manifest: Manifest) -> None:
    found = outline(encode(manifest), manifest.id)
    assert (found.id, facts(found)) == (manifest.id, facts(manifest))
    assert found.total_bytes == manifest.total_bytes
    for file, (_, whole) in zip(found.files(), manifest.walk(), strict=True):
        assert isinstance(file.lines, memoryview) or not manifest.chunk_count or not whole.chunks
        assert file.chunks() == whole.chunks
        assert list(file.digests()) == [digest for _, digest in whole.chunks]
    assert facts(outline(write.compact(manifest), manifest.id)) == facts(manifest)


TOKENS = (
    b'            "chunks": [',
    b'"chunks"',
    b"            ]",
    b"]",
    b"[",
    b"{",
    b"}",
    b":",
    b",",
    b'"',
    b"\n",
    b"\n            ]\n",
    b'[5, "',
    b"NaN",
    b"null",
    b"1.5",
    b'"x"',
    b'"x": ',
    b'"size": ',
    b"0",
    b"",
)


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """The text with bytes changed, tokens replaced, inserted or left out, and lines moved about."""
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        kind = draw(st.sampled_from(["byte", "token", "insert", "lines"]))
        starts = [at for at in range(len(data)) if data.startswith(b'"chunks": [', at)]
        near = draw(st.sampled_from([(0, len(data)), *((at - 20, at + 260) for at in starts)]))
        at = draw(st.integers(max(0, near[0]), min(near[1], len(data))))
        if kind == "byte":
            data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
        elif kind == "token":
            old = draw(st.sampled_from([token for token in TOKENS if token and token in data] or [data]))
            places = data.split(old)
            which = draw(st.integers(1, len(places) - 1))
            new = draw(st.sampled_from(TOKENS))
            data = old.join(places[:which]) + new + old.join(places[which:])
        else:
            lines = data.split(b"\n")
            start, stop, to = (draw(st.integers(0, len(lines))) for _ in range(3))
            piece = lines[start:stop]
            if draw(st.booleans()):
                del lines[start:stop]
            lines[to:to] = piece
            data = b"\n".join(lines)
    return data


def with_whole_lists(data: bytes, found: Outline) -> bytes:
    """The text with other chunk lists in place of those that an outline did not look into: faultless ones."""
    begin, end, position = b'"chunks": [\n', b"\n            ]", 0
    for file in found.files():
        if isinstance(file.lines, ChunkList):
            continue
        old = begin + bytes(file.lines) + end
        position = data.index(old, position)
        count = bytes(file.lines).count(b"\n") + 1
        each, more = divmod(file.size, count)
        digests = [digest_of(file.blake3 + bytes([index])) for index in range(count)]
        if count == 1:
            digests = [file.blake3]
        new = ",\n".join(
            f'              [{each + (index < more)}, "{digest.hex()}"]'
            for index, digest in enumerate(digests)
        ).encode()
        # A digest has one size: the same list for equal files, and digests made of the file's for all others.
        data = data[:position] + begin + new + end + data[position + len(old) :]
        position += len(begin) + len(new) + len(end)
    return data


@given(manifests().flatmap(lambda each: st.tuples(st.just(each), spoiled(encode(each)))))
@settings(parent=unhurried, max_examples=250)
def test_of_a_spoiled_text_only_the_insides_of_chunk_lists_are_overlooked(
    case: tuple[Manifest, bytes],
) -> None:
    manifest, data = case
    whole = tried(lambda: decode(data))
    found = tried(lambda: outline(data, manifest.id))
    if isinstance(found, str):
        event("refused")
        assert found == whole or (
            isinstance(whole, Manifest) and whole.id != manifest.id and "[M20]" in found
        )
        return
    good = whole if isinstance(whole, Manifest) else None
    event("a good text" if good else "damage overlooked")
    assert facts(found) == facts(good or decode(with_whole_lists(data, found)))
    for file in found.files():
        chunks = tried(file.chunks)
        if isinstance(chunks, str):
            continue
        assert chunks.total_bytes == file.size
        assert list(file.digests()) == [digest for _, digest in chunks]
        if good:
            assert chunks in [each.chunks for _, each in good.walk() if each.blake3 == file.blake3]


@given(st.one_of(st.binary(max_size=60), spoiled(b'\n            "chunks": [\n\n            ]')))
@unhurried
def test_no_bytes_cause_anything_but_a_manifest_error(data: bytes) -> None:
    assert isinstance(tried(lambda: outline(data, digest_of(data))), str), "no manifest is this small"


# --- donors ------------------------------------------------------------------------------------------------

PIECES = tuple(bytes([value]) * BLOCK for value in range(6))
# The last is two of the others: some files are cut in two ways, and are one blob with two chunk lists.
FILES = st.lists(st.sampled_from((*PIECES, PIECES[0] + PIECES[1])), min_size=1, max_size=3).map(tuple)
CHECKPOINTS = st.lists(st.lists(FILES, min_size=1, max_size=3), min_size=1, max_size=4)


def donors_of_all_manifests(
    work: WorkList, stores: Iterable[Store], but_not: Iterable[Path]
) -> LocalFiles | None:
    """The specification of `find_donors`: every manifest decoded, every file of it looked at in turn."""
    source = LocalFiles("donors", len(work))
    wanted = {work.digest(item): item for item in range(len(work))}
    for store in stores:
        for manifest in store.catalog.manifests():
            for _, file in manifest.walk():
                for place, indexes, proven in places_of(store, file, but_not):
                    for index in indexes:
                        if file.chunks.digest(index) in wanted:
                            item = wanted[file.chunks.digest(index)]
                            source.claim(item, place, file.chunks.offsets[index], proven=proven)
    return source if len(source.has) else None


def places_of(
    store: Store, file: FileEntry, but_not: Iterable[Path]
) -> Iterator[tuple[Path, Iterable[int], bool]]:
    """Files, which of the chunks may lie in them, and whether that was verified."""
    holding, chunks = store.blobs.find(file.blake3, file.size, file.chunks), file.chunks
    if holding.path is not None and holding.path not in but_not:
        size = holding.path.stat().st_size
        inside = [index for index in range(len(chunks)) if chunks.offsets[index + 1] <= size]
        yield holding.path, inside, holding.presence is Presence.PROVEN
    partial = store.layout.partial(file.blake3, chunks.id)
    if partial not in but_not and regular(partial) is not None:
        yield partial, list(read_claims(partial, chunks)), False


def claims(source: LocalFiles | None) -> dict[int, tuple[Path, int]] | None:
    """What a source says: item -> file and offset."""
    if source is None:
        return None
    return {item: source.place(item) for item in source.has}


def settle(draw: st.DrawFn, store: Store, pieces: tuple[bytes, ...]) -> None:
    """Puts a file into the store, whole or in part, or beside it, or not at all."""
    data, digest = b"".join(pieces), digest_of(b"".join(pieces))
    match draw(st.sampled_from(["absent", "whole", "short", "partial", "adopted", "gone"])):
        case "whole":
            fill(store, pieces)
        case "short":
            path = store.layout.blob(digest)
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(data[:-1])
        case "partial":
            partial = store.blobs.open_partial(digest, chunk_list(pieces))
            write_chunks(partial, pieces, sorted(draw(st.sets(st.integers(0, len(pieces) - 1)))))
            partial.close()
        case "adopted" | "gone" as kind:
            path = store.root.parent / f"{store.root.name}-{digest.hex()}"
            path.write_bytes(data)
            store.blobs.adopted.put(digest, AdoptedFile(path, Stamp.of(path.stat())))
            if kind == "gone":
                path.unlink()


@st.composite
def stocked(draw: st.DrawFn, store: Store) -> None:
    """Fills a store; some of its manifests are spelled in another way or damaged."""
    files: list[tuple[bytes, ...]] = []
    for number, checkpoint in enumerate(draw(CHECKPOINTS)):
        checkpoint = list({b"".join(pieces): pieces for pieces in checkpoint}.values())
        files += checkpoint
        named = {f"m/{index}": pieces for index, pieces in enumerate(checkpoint)}
        manifest = manifest_of(f"lab/{number}", named)
        store.catalog.add(manifest)
        text = store.layout.manifest(manifest.id)
        match draw(st.sampled_from(["plain"] * 4 + ["compact", "spaced", "damaged"])):
            case "compact":
                text.write_bytes(write.compact(manifest))
            case "spaced":
                text.write_bytes(text.read_bytes().replace(b', "', b' ,"', 1))
            case "damaged":
                text.write_bytes(text.read_bytes()[:-10])
    for pieces in dict.fromkeys(files):
        settle(draw, store, pieces)


@given(st.data(), st.lists(FILES, min_size=1, max_size=3))
@settings(parent=unhurried, max_examples=40)
def test_donors_and_their_order_are_those_of_all_manifests_decoded(
    data: st.DataObject, wanted: list[tuple[bytes, ...]]
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.multiple(Files, flush_data=mock.DEFAULT, flush_dir=mock.DEFAULT),
    ):
        roots = [Path(folder) / name for name in ("own", "lower")]
        for root in roots:
            data.draw(stocked(Store.open(root)))
        blobs = [
            BlobFacts(digest_of(b"".join(each)), len(b"".join(each)), chunk_list(each), "", "f")
            for each in wanted
        ]
        work = WorkList(blobs)
        layout = Store.open(roots[0]).layout
        but_not = [layout.partial(facts.digest, facts.chunks.id) for facts in blobs[:1]]
        expected = donors_of_all_manifests(work, [Store.open(root) for root in roots], but_not)
        found = find_donors(work, [Store.open(root) for root in roots], but_not)
        event(f"{0 if found is None else len(found.has)} of {len(work)}")
        assert claims(found) == claims(expected)
        if found is not None and expected is not None:
            assert found.files() == expected.files()
