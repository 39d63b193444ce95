"""`diachunk` is all that a program needs: what its functions take and return can be named."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys

import diachunk
from diachunk import errors

NOT_FOR_PROGRAMS = {
    "Catalog",  # of the store, which what is public may keep to itself
    "Checked",
    "ChunkList",  # of a manifest, whose rules docs/manifest.md has
    "Config",  # of the command line: settings that it has read already
    "First",  # of a load, which says what it reads first
    "Health",
    "Recipe",
    "Sharing",
    "StatedCheckpoint",
    "WantedCheckpoint",
}


def named_by(thing: object) -> set[str]:
    """The words of capital letters in what a public thing says of its types."""
    said = inspect.get_annotations(thing) if callable(thing) else {}
    if inspect.isclass(thing) and dataclasses.is_dataclass(thing):
        said = {field.name: field.type for field in dataclasses.fields(thing)}
    return set(re.findall(r"\b[A-Z]\w+", " ".join(map(str, said.values()))))


def test_every_class_that_a_public_one_names_is_public() -> None:
    names = {name for each in diachunk.__all__ for name in named_by(getattr(diachunk, each))}
    ours = {name for name in names if any(name in vars(module) and is_ours(name) for module in loaded())}
    assert ours - set(diachunk.__all__) - NOT_FOR_PROGRAMS - set(vars(errors)) == set()


WHOLLY = {"ComponentPlan", "LoadReport", "PlacedFile", "PlacedIn"}
"""Of which every field is explained; of the others at least what is counted."""


def test_what_is_counted_says_what_it_counts() -> None:
    silent = [
        f"{name}.{field}"
        for name in diachunk.__all__
        for field in fields_of(getattr(diachunk, name))
        if (name in WHOLLY or field.endswith(("_bytes", "_s", "_bps")))
        and not re.search(rf"\b{field}\b", inspect.getdoc(getattr(diachunk, name)) or "")
    ]
    assert silent == []


def fields_of(thing: object) -> list[str]:
    if not inspect.isclass(thing) or not dataclasses.is_dataclass(thing):
        return []
    return [field.name for field in dataclasses.fields(thing) if not field.name.startswith("_")]


def loaded() -> list[object]:
    return [module for name, module in sys.modules.items() if name.startswith("diachunk.")]


def is_ours(name: str) -> bool:
    found = [vars(module)[name] for module in loaded() if name in vars(module)]
    return any(inspect.isclass(each) and each.__module__.startswith("diachunk.") for each in found)


def test_every_public_name_is_there_and_errors_are_without_an_import_of_their_own() -> None:
    code = "import diachunk; diachunk.errors.UsageError; [getattr(diachunk, n) for n in diachunk.__all__]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_naming_the_library_imports_nothing_heavy() -> None:
    code = "import sys, diachunk; diachunk.errors; diachunk.Manifest; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
