"""Which files of a component hold its tensors, and what they hold together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from diachunk.errors import LoadError, UsageError
from diachunk.limits import MiB
from diachunk.loader.dtypes import matches
from diachunk.loader.layout import Layout, chosen
from diachunk.manifest.model import Component, FileEntry

INDEX_BYTES_MAX = 32 * MiB
_SAFE = (".safetensors",)
_PICKLED = (".pth", ".pt", ".bin", ".ckpt")
_PACKED = (".gguf",)
_BY_CUSTOM = ("model.safetensors", "pytorch_model.bin")
"""What transformers calls the weights. It saves its arguments, optimizers and states of generators beside them."""
_SAFE_INDEX = (".safetensors.index.json",)
_PICKLED_INDEX = (".bin.index.json",)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files that are to be loaded: one, or the shards that `index` lists."""

    files: tuple[FileEntry, ...]
    index: FileEntry | None = None


def choose_files(component: Component, label: str) -> Chosen:
    """The files that hold a component's tensors: an index and its shards, else the one file, or of several the one
    that is called as transformers calls it. Where a checkpoint keeps the same weights in several formats, safetensors
    is taken.

    Raises:
        LoadError: there is none, or nothing says which of several.
    """
    by_path = {file.path: file for file in component.files}
    for index, suffixes in ((_SAFE_INDEX, _SAFE), (_PICKLED_INDEX, _PICKLED)):
        indexes = _ending(by_path, index)
        if len(indexes) > 1:
            raise _several(label, indexes)
        if indexes:
            return Chosen((), indexes[0])
        files = _ending(by_path, suffixes)
        if len(files) > 1:
            files = [file for file in files if file.path in _BY_CUSTOM] or files
        if len(files) > 1:
            raise _several(label, files)
        if files:
            return Chosen(tuple(files))
    if _ending(by_path, _PACKED):
        raise LoadError(
            f"{label} holds GGUF, whose packed tensors torch has no dtypes for", hint="use llama.cpp"
        )
    raise LoadError(f"{label} holds no tensors: no .safetensors, .pth, .pt or .bin", hint=_holds(component))


def _ending(by_path: dict[str, FileEntry], suffixes: tuple[str, ...]) -> list[FileEntry]:
    return [file for path, file in by_path.items() if path.lower().endswith(suffixes)]


def _holds(component: Component) -> str:
    names = [file.path for file in component.files]
    return f"it has: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}"


def _several(label: str, files: Sequence[FileEntry]) -> LoadError:
    names = ", ".join(file.path for file in files[:6])
    return LoadError(
        f"{label} holds several files of tensors and no index says which: {names}",
        hint="publish them as components of their own",
    )


def shards_of(
    component: Component, index: FileEntry, text: bytes, label: str
) -> tuple[tuple[FileEntry, ...], frozenset[str]]:
    """The files that an index lists, in order of first appearance, and the tensors.

    Raises:
        LoadError: it is no index, or names a file that the component has not.
    """
    by_path = {file.path: file for file in component.files}
    folder = PurePosixPath(index.path).parent
    try:
        table = json.loads(text)["weight_map"]
        names = dict.fromkeys(str((folder / name).as_posix()) for name in table.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LoadError(f"{label}: {index.path} is no index of shards") from error
    for name in names:
        if name not in by_path:
            raise LoadError(f"{label}: {index.path} names a shard {name!r:.80} that is not in the manifest")
    return tuple(by_path[name] for name in names), frozenset(table)


def check_listed(listed: frozenset[str], layout: Layout, index: FileEntry, label: str) -> None:
    """Whether the shards hold all that their index lists: a set of shards of two versions may not.

    Raises:
        LoadError: they do not.
    """
    absent = listed.difference(layout.names)
    if absent:
        raise LoadError(
            f"{label}: {index.path} lists {len(absent):,} tensors that no shard holds, such as {min(absent)!r:.80}"
        )


def pick(
    layout: Layout, tensors: Iterable[str] | None, label: str, order: Sequence[str] | None = None
) -> Layout:
    """The tensors asked for by name or glob, those in `order` first.

    Raises:
        UsageError: one of `tensors` is not there, or matches nothing.
    """
    if tensors is None and order is None:
        return layout
    names = list(layout.names)
    if tensors is not None:
        wanted = (tensors,) if isinstance(tensors, str) else tuple(tensors)
        check_globs(wanted, names, label)
        names = [name for name in names if matches(name, wanted)]
    if order is not None:
        rank = {name: number for number, name in enumerate(order)}
        names.sort(key=lambda name: rank.get(name, len(rank)))
    return chosen(layout, names)


def check_globs(globs: Iterable[str], names: Sequence[str], label: str) -> None:
    """Whether each of them is, or matches, a name.

    Raises:
        UsageError: one does not.
    """
    known = frozenset(names)
    for glob in globs:
        if glob not in known and not any(matches(name, (glob,)) for name in names):
            raise UsageError(f"{label} has no tensor {glob!r:.80}", hint=_nearest(glob, names))


def _nearest(glob: str, names: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(glob, names[:20_000], n=3, cutoff=0.5) or names[:3]
    return f"it has {len(names):,}, such as {', '.join(near)}" if names else "it has none"
