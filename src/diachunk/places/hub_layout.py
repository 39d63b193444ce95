"""Where the files of a component from a hub belong in the cache of huggingface_hub."""

from __future__ import annotations

import json
import posixpath

from diachunk.digest import git_hasher
from diachunk.errors import UsageError
from diachunk.manifest import Component, FileEntry
from diachunk.places.base import Layout, Manner, Pointer, Spot, Text
from diachunk.places.hub_names import directory_of, is_commit, is_repository

CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# This directory is a cache: https://bford.info/cachedir/\n"
)
"""Tells backup programs to leave the directory out. Source: Cache Directory Tagging Specification."""

_REF = "main"
"""What programs ask for if nobody names a revision; transformers asks for a codec at no other."""


def layout(component: Component) -> Layout:
    """Blobs, the links of the commit to them, and `refs/main` last: whoever reads that finds the rest.

    Raises:
        UsageError: it is not from a hub, or what it says of that is nothing that a hub has.
    """
    upstream, name = component.upstream, component.name or "the checkpoint"
    if upstream.get("kind") != "hub":
        raise UsageError(f"{name} does not come from a hub: it has no place in a hub's cache")
    repository, commit = upstream.get("repository"), upstream.get("commit")
    if not is_repository(repository):
        raise UsageError(f"{name}: {repository!r:.99} is no repository of a hub")
    if not is_commit(commit):
        raise UsageError(f"{name}: {commit!r:.50} is no commit (40 hex digits)")
    top, snapshot = directory_of(str(repository)), f"snapshots/{commit}"
    spots: dict[str, Spot] = {}
    pointers = []
    for file in component.files:
        algorithm, etag = _etag(file)
        spots.setdefault(etag, Spot(f"{top}/blobs/{etag}", file, algorithm, f"{top}/snapshots"))
        where = f"{snapshot}/{file.path}"
        target = posixpath.relpath(f"blobs/{etag}", posixpath.dirname(where))
        pointers.append(Pointer(f"{top}/{where}", target, file, algorithm))
    texts = [
        Text("CACHEDIR.TAG", CACHEDIR_TAG, Manner.MARK),
        Text(f"{top}/refs/{_REF}", str(commit).encode(), Manner.REF, f"{top}/snapshots/{{}}"),
    ]
    if upstream.get("files") == "all":
        texts.insert(1, Text(f"{top}/trees/{commit}.json", _tree(component), Manner.NEW))
    return Layout(
        component.name,
        tuple(spots.values()),
        tuple(pointers),
        tuple(texts),
        tuple(f"{top}/.no_exist/{commit}/{file.path}" for file in component.files),
        # To the clients, a link more in snapshots that leads nowhere is damage of the whole repository, and any file in
        # refs is a ref.
        f"{top}/blobs",
        f"{top}/{snapshot}",
        f"programs find {repository} now, also with HF_HUB_OFFLINE=1",
    )


def _tree(component: Component) -> bytes:
    """What the clients since 1.22 take for the list of *all* files of the repository at this commit, for ever.

    So it is written only where the manifest says that it holds all of them: of a list that leaves some out, the
    clients would never fetch those.
    """
    files: dict[str, dict[str, object]] = {}
    for file in sorted(component.files, key=lambda each: each.path):
        if file.git:
            files[file.path] = {"size": file.size, "blob_id": file.git}
            continue
        # What git keeps of an LFS file. Source: git-lfs specification, "The Pointer".
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n"
        running = git_hasher(len(pointer))
        running.update(pointer.encode())
        files[file.path] = {
            "size": file.size,
            "blob_id": running.hexdigest(),
            "lfs_sha256": file.sha256,
            "lfs_size": file.size,
        }
    return json.dumps({"format_version": 1, "files": files}, indent=1).encode()


def _etag(file: FileEntry) -> tuple[str, str]:
    """What the hub's clients call this file's blob, and which digest that is."""
    if file.git:
        return "git", file.git
    if file.sha256:
        return "sha256", file.sha256
    raise UsageError(
        f"{file.path}: the manifest does not say under which name a hub keeps it",
        hint="publish the checkpoint again from its hub",
    )
