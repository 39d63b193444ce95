"""What the Hub answers, as values: JSON of its API, headers of its files, errors in its words.

Written after what unmodified clients ask for and depend on (huggingface_hub 0.36, 1.x and 2.x, transformers 5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from diachunk.testing.hub_files import Commit, HubFile, tree_id
from diachunk.testing.reply import Reply, Request, Resource, honest, plain

_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
_TIME = "2026-01-01T00:00:00.000Z"


def error(status: int, message: str, code: str = "", **headers: str) -> Reply:
    """An error as the Hub words it; clients go by X-Error-Code, and show X-Error-Message."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given |= {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return _json({"error": message}, status, given)


def repository_not_found(status: int = 404) -> Reply:
    return error(
        status, "Repository not found" if status == 404 else "Invalid username or password.", "RepoNotFound"
    )


def revision_not_found(revision: str) -> Reply:
    return error(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: Commit) -> Reply:
    return error(404, f"Entry not found: {path}", "EntryNotFound", X_Repo_Commit=commit.id)


def gated(repository: str, authorized: bool) -> Reply:
    message = f"Access to model {repository} is restricted."
    if authorized:
        return error(403, f"{message} You are not in the authorized list.", "GatedRepo")
    return error(401, f"{message} You must have access to it and be authenticated.", "GatedRepo")


def moved(location: str) -> Reply:
    """307, as for a repository that has another name by now."""
    return plain(307, b"", {"Location": location})


def whoami(name: str) -> Reply:
    return _json(
        {
            "type": "user",
            "id": "0" * 24,
            "name": name,
            "fullname": name,
            "orgs": [],
            "auth": {"type": "token"},
        }
    )


def model_info(repository: str, commit: Commit, *, private: bool, gated: bool, blobs: bool) -> Reply:
    """`/api/models/REPO` and `.../revision/REV`; `?blobs=true` adds sizes and ids."""
    return _json(
        {
            "_id": commit.id[:24],
            "id": repository,
            "modelId": repository,
            "author": repository.partition("/")[0],
            "sha": commit.id,
            "lastModified": _TIME,
            "createdAt": _TIME,
            "private": private,
            "disabled": False,
            "gated": "manual" if gated else False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [_sibling(file, blobs) for file in commit.files.values()],
        }
    )


def tree(request: Request, commit: Commit, folder: str, base_url: str, page_size: int) -> Reply:
    """`/api/models/REPO/tree/REV[/FOLDER]`, a page of it; `Link: <...>; rel="next"` says where it goes on."""
    path, _, query = request.path.partition("?")
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    entries = list(_entries(commit, folder, recursive=asked.get("recursive", "").lower() == "true"))
    if folder and not entries:
        return entry_not_found(folder, commit)
    first = int(cursor) if (cursor := asked.get("cursor", "0")).isdecimal() else 0
    size = int(limit) if (limit := asked.get("limit", "")).isdecimal() and int(limit) else page_size
    end = first + min(size, page_size)
    headers = {}
    if end < len(entries):
        following = urlencode({**asked, "cursor": end})
        headers["Link"] = f'<{base_url}{path}?{following}>; rel="next"'
    return _json(entries[first:end], 200, headers)


def small_file(request: Request, file: HubFile, commit: Commit) -> Reply:
    """`/REPO/resolve/REV/PATH` of a file that lies in git."""
    reply = content(request, file, f'"{file.etag}"')
    return reply.with_headers(
        X_Repo_Commit=commit.id, Content_Disposition=_disposition(file), Last_Modified=None
    )


def redirected_to_cache(path: str, repository: str, file: HubFile, commit: Commit) -> Reply:
    """307, relative, to where the commit's small files may be cached by whoever stands between; it has no ETag."""
    query = urlencode({path: "", "etag": f'"{file.etag}"'})
    location = f"/api/resolve-cache/models/{repository}/{commit.id}/{quote(file.path)}?{query}"
    return moved(location).with_headers(X_Repo_Commit=commit.id, Accept_Ranges="bytes")


def large_file(file: HubFile, commit: Commit, location: str) -> Reply:
    """`/REPO/resolve/REV/PATH` of a file that lies in LFS: a redirect, with the file's own size and name."""
    headers = {
        "Location": location,
        "X-Repo-Commit": commit.id,
        "X-Linked-Size": str(file.size_bytes),
        "X-Linked-Etag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "text/plain; charset=utf-8",
    }
    return plain(302, f"Found. Redirecting to {location}".encode(), headers)


def content(request: Request, file: HubFile, etag: str) -> Reply:
    """The bytes, with 206 to a Range request."""
    return honest(request, Resource(file.content, etag, _MODIFIED))


def denied() -> Reply:
    """What a storage service says to a link that has expired, or that it never made."""
    body = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>'
    return plain(403, body, {"Content-Type": "application/xml"})


def two_logins() -> Reply:
    """What a storage service says to a signed link that comes with an Authorization header as well."""
    body = b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"
    return plain(400, body, {"Content-Type": "application/xml"})


def _entries(commit: Commit, folder: str, recursive: bool) -> Iterator[dict[str, Any]]:
    start = f"{folder}/" if folder else ""
    told: set[str] = set()
    for path, file in commit.files.items():
        if not path.startswith(start):
            continue
        parts = path.removeprefix(start).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            directory = start + "/".join(parts[:depth])
            if directory not in told:
                told.add(directory)
                yield {"type": "directory", "oid": tree_id(directory, commit), "size": 0, "path": directory}
        if recursive or len(parts) == 1:
            yield _tree_file(file)


def _tree_file(file: HubFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.git_id, "size": file.size_bytes, "path": file.path}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size_bytes, "pointerSize": file.pointer_bytes}
    return entry


def _sibling(file: HubFile, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        sibling |= {"blobId": file.git_id, "size": file.size_bytes}
        if file.lfs:
            sibling["lfs"] = {
                "sha256": file.sha256,
                "size": file.size_bytes,
                "pointerSize": file.pointer_bytes,
            }
    return sibling


def _disposition(file: HubFile) -> str:
    name = quote(file.path.rpartition("/")[2])
    return f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    given = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return plain(status, json.dumps(value).encode(), given)
