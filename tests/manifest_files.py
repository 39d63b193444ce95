"""Manifests for the tests: a good one as JSON, ways to spoil it, and the refusal that each must meet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from diachunk.digest import digest_of
from diachunk.errors import ManifestError
from diachunk.limits import DEFAULT, Limits
from diachunk.manifest import decode

HELLO = digest_of(b"hello").hex()
OTHER = digest_of(b"other").hex()
EMPTY = digest_of(b"").hex()
SHA = "a" * 64


def file(path: str = "a.bin", size: int = 5, digest: str = HELLO) -> dict[str, Any]:
    return {"path": path, "size": size, "blake3": digest, "chunks": [[size, digest]] if size else []}


def document() -> dict[str, Any]:
    components = [{"name": "model", "files": [file()]}]
    content = {"name": "n", "revision": "main", "chunking": "tensor-4m/1", "components": components}
    return {"diachunk": 1, "content": content, "hints": {}}


def with_files(*files: dict[str, Any]) -> bytes:
    whole = document()
    whole["content"]["components"][0]["files"] = list(files)
    return json.dumps(whole).encode()


def _holders(whole: dict[str, Any]) -> dict[str, Any]:
    component = whole["content"]["components"][0]
    holders = {"document": whole, "content": whole["content"], "component": component}
    return {**holders, "file": component["files"][0], "hints": whole["hints"]}


def put(where: str, value: object) -> bytes:
    """A good manifest with one member, such as "content.name", set to `value`."""
    holder, key = where.split(".")
    whole = document()
    _holders(whole)[holder][key] = value
    return json.dumps(whole).encode()


def without(where: str) -> bytes:
    """A good manifest that lacks one member."""
    holder, key = where.split(".")
    whole = document()
    del _holders(whole)[holder][key]
    return json.dumps(whole).encode()


def two_components(first: str, second: str) -> bytes:
    whole = document()
    whole["content"]["components"] = [{"name": name, "files": [file()]} for name in (first, second)]
    return json.dumps(whole).encode()


def raw(member: str) -> bytes:
    """A good manifest whose content also has this member, as text that json.dumps would not write."""
    return json.dumps(document()).encode().replace(b'"name": "n"', b'"name": "n", ' + member.encode(), 1)


def refused(data: bytes, rule: str, limits: Limits = DEFAULT) -> str:
    """Asserts that the manifest is refused by `rule`, in one line; returns that line."""
    with pytest.raises(ManifestError) as caught:
        decode(data, limits)
    message = str(caught.value)
    assert (caught.value.rule, caught.value.exit_code) == (rule, 3), message
    assert message.isprintable(), "one line"
    assert len(message) < 500
    assert not any(word in message for word in ("Traceback", "JSONDecodeError", "KeyError", "TypeError")), (
        message
    )
    return message
