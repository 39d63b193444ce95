"""The example, by the real transformers, on the tiny random Dia, offline: both ways say the same."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import pytest

import diachunk
from diachunk.digest import digest_of, git_hasher
from diachunk.errors import LoadError
from diachunk.manifest import Component, FileEntry, Manifest, build, encode
from diachunk.transfer.progress import Listener
from fixtures.programs import TRANSFORMERS, clean_environment, python_of
from fixtures.tiny_dia import (
    MODEL,
    MODEL_COMMIT,
    MODEL_FILES,
    VOCODER,
    VOCODER_COMMIT,
    VOCODER_FILES,
    TinyDia,
    tiny_dia,
)

__all__ = ["tiny_dia"]

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]
CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "examples" / "dia_tts.py"


def published(root: Path, tiny: TinyDia) -> tuple[Path, Path]:
    """(manifest, origin): as the recipe dia-1.6b describes the real one."""
    origin = root / "origin"
    components = []
    for name, folder, files, repository, commit in (
        ("model", tiny.model, MODEL_FILES, MODEL, MODEL_COMMIT),
        ("vocoder", tiny.vocoder, VOCODER_FILES, VOCODER, VOCODER_COMMIT),
    ):
        (origin / name).mkdir(parents=True)
        for file in files:
            shutil.copy(folder / file, origin / name / file)
        done = diachunk.publish(
            [f"{name}={origin / name}"], name="lab/part", out=root / "part.json", store=False
        )
        upstream = {"kind": "hub", "repository": repository, "commit": commit}
        entries = tuple(
            named_as_on_the_hub(each, origin / name / each.path) for each in done.manifest.components[0].files
        )
        components.append(Component(name, entries, upstream))
    manifest: Manifest = build("dia-1.6b", "main", components)
    target = root / "dia.json"
    target.write_bytes(encode(manifest))
    return target, origin


def named_as_on_the_hub(entry: FileEntry, path: Path) -> FileEntry:
    data = path.read_bytes()
    assert digest_of(data) == entry.blake3
    git = git_hasher(len(data))
    git.update(data)
    small = path.suffix == ".json"
    return FileEntry(
        entry.path,
        entry.size,
        entry.blake3,
        entry.chunks,
        hashlib.sha256(data).hexdigest(),
        git=git.hexdigest() if small else "",
    )


def spoken(way: str, target: Path, origin: Path, home: Path, *more: str) -> list[int]:
    """Runs the example as a user would, with no way to any network; returns the samples."""
    out = home / f"{way}.wav"
    environment = clean_environment(home) | {
        "PYTHONPATH": str(CHECKOUT / "src"),
        "DIACHUNK_HOME": str(home / "store"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    command = [str(python_of(TRANSFORMERS)), str(EXAMPLE), str(target), "--origin", str(origin), "--way", way]
    done = subprocess.run(
        [*command, "--tokens", "48", "--out", str(out), *more],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == str(out)
    with wave.open(str(out)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 44_100)
        frames = file.readframes(file.getnframes())
    assert os.path.getsize(out) > 44
    return list(memoryview(frames).cast("h"))


def test_both_ways_say_the_same(tiny_dia: TinyDia, tmp_path: Path) -> None:
    target, origin = published(tmp_path, tiny_dia)
    home = tmp_path / "home"
    home.mkdir()
    one = spoken("placed", target, origin, home, "--dtype", "fp32")
    other = spoken("load", target, origin, home, "--dtype", "fp32")
    assert len(one) > 10_000
    assert one == other
    assert (home / "huggingface" / "hub").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "gpu"), "no gpu here"),
        (("--device", "cuda:99"), "no cuda:99 here"),
        (("--dtype", "bf61"), "invalid choice: 'bf61'"),
    ],
)
def test_a_device_or_dtype_that_cannot_be_is_said_before_anything_is_fetched(
    tmp_path: Path, words: tuple[str, str], said: str
) -> None:
    environment = clean_environment(tmp_path) | {"DIACHUNK_HOME": str(tmp_path / "store")}
    done = subprocess.run(
        [str(python_of(TRANSFORMERS)), str(EXAMPLE), *words],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(CHECKOUT / "src")},
        timeout=60,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_the_fetch_shows_a_bar_and_what_limits_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(target: str, progress: Listener, **options: object) -> None:
        progress(diachunk.SourceTrouble("files.example", "503"))
        progress(diachunk.Status(7_000_000, 1e6, 7.0, "origin files.example", ()))
        raise LoadError("that is all")

    monkeypatch.setattr(diachunk, "fetch", fetch)
    with pytest.raises(LoadError):
        runpy.run_path(str(EXAMPLE))["prepare"]("dia-1.6b", [])
    shown = capsys.readouterr().err
    assert "7.00M" in shown
    assert "origin files.example" in shown
    assert "files.example: 503" in shown


def test_the_fetch_is_not_told_to_stay_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It obeys that variable as the hub's own library does: who has nothing yet would get nothing."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    said: list[str | None] = []

    def fetch(target: str, **options: object) -> None:
        said.append(os.environ.get("HF_HUB_OFFLINE"))
        raise LoadError("that is all")

    monkeypatch.setattr(diachunk, "fetch", fetch)
    prepare = runpy.run_path(str(EXAMPLE))["prepare"]
    with pytest.raises(LoadError, match="that is all"):
        prepare("dia-1.6b", [])
    assert said == [None]


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is here")
def test_what_is_not_installed_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path) | {"DIACHUNK_HOME": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "dia-1.6b"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "needs transformers: pip install" in done.stderr
    assert not (tmp_path / "store").exists()
