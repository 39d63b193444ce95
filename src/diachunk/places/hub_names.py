"""Names in the cache of huggingface_hub: directories of repositories, blobs, commits, and where the cache lies.

Sources: huggingface_hub 0.36, 1.16 and 2.4 (constants.py, file_download.py, utils/_validators.py), in behaviour.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from diachunk.places.base import home_of

_REPOSITORY = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?", re.ASCII)
_REPOSITORY_CHARS_MAX = 96
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIRECTORY = re.compile(r"(models|datasets|spaces|kernels)--(.+)", re.DOTALL)
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def is_repository(text: object) -> bool:
    """Whether `text` is NAME or ORG/NAME as the Hub has them: no "--", which stands for "/" in the cache."""
    if not isinstance(text, str) or len(text) > _REPOSITORY_CHARS_MAX or text.count("/") > 1:
        return False
    return all(_REPOSITORY.fullmatch(part) for part in text.split("/")) and not text.endswith(".git")


def is_commit(text: object) -> bool:
    """Whether `text` is 40 lower-case hex digits."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None


def directory_of(repository: str) -> str:
    """The directory of a model repository in the cache: "models--org--name"."""
    return "--".join(("models", *repository.split("/")))


def repository_of(directory: str) -> str:
    """The repository of a directory of the cache; "" if it is none. Data sets are "datasets/org/name"."""
    match = _DIRECTORY.fullmatch(directory)
    if match is None:
        return ""
    name = match[2].replace("--", "/")
    return name if match[1] == "models" else f"{match[1]}/{name}"


def algorithm_of(blob_name: str) -> str:
    """What a blob's name is: "sha256" of its bytes, their "git" id, or "" for neither."""
    if _SHA256.fullmatch(blob_name):
        return "sha256"
    return "git" if _COMMIT.fullmatch(blob_name) else ""


def cache_directory(environment: Mapping[str, str]) -> str:
    """Where the cache lies: HF_HUB_CACHE > HUGGINGFACE_HUB_CACHE > HF_HOME/hub > XDG_CACHE_HOME/huggingface/hub >
    ~/.cache/huggingface/hub. As in the library itself a variable that is set counts, also one that is empty.
    """
    base = environment.get("XDG_CACHE_HOME", os.path.join(home_of(environment), ".cache"))
    home = _expand(environment.get("HF_HOME", os.path.join(base, "huggingface")), environment)
    older = environment.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    return os.path.abspath(_expand(environment.get("HF_HUB_CACHE", older), environment))


def _expand(text: str, environment: Mapping[str, str]) -> str:
    """A "~" at the start and $VARIABLES, which stay as they are where they are not set."""
    if text == "~" or text.startswith("~/"):
        text = home_of(environment) + text[1:]
    elif text.startswith("~"):
        text = os.path.expanduser(text)
    return _VARIABLE.sub(lambda match: environment.get(match[1].strip("{}"), match[0]), text)
