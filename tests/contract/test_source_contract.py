"""Every source against the one suite, with the example of docs/sources.md."""

from __future__ import annotations

import re
import resource
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

import diachunk
from diachunk.errors import UsageError
from diachunk.schedule.health import Fault
from diachunk.sources import open as opening
from diachunk.sources.base import Source, SourceFault
from diachunk.sources.context import SourceContext
from diachunk.sources.directory import DirectoryOrigin
from diachunk.sources.http import HttpOrigin
from diachunk.sources.local import LOCAL_SLICE_BYTES, LocalFiles
from diachunk.sources.open import open_origin
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import StallAfter, always
from diachunk.testing.recording_flow import RecordingFlow
from diachunk.testing.servers import Nginx
from diachunk.testing.source_contract import SourceContract
from schedule_world import work_of

GUIDE = Path(__file__).parents[2] / "docs" / "sources.md"


class OverNginx(SourceContract):
    """Serves through a real web server."""

    tls: ClassVar[bool] = False
    ranges: ClassVar[bool] = True

    @pytest.fixture(autouse=True)
    def _stopping(self) -> Iterator[None]:
        self.servers: list[Nginx | BadServer] = []
        yield
        for server in self.servers:
            server.close()

    @pytest.fixture(autouse=True)
    def _patched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def serve(self, root: Path) -> Nginx:
        server = Nginx(root, tls=self.tls, ranges=self.ranges)
        self.servers.append(server)
        if server.cafile:
            self.monkeypatch.setenv("SSL_CERT_FILE", str(server.cafile))
        return server

    def make_source(self, root: Path) -> Source:
        return HttpOrigin(self.serve(root).url, SourceContext())

    def make_stalled_source(self, root: Path) -> Source | None:
        self.servers.append(BadServer(root, always(StallAfter(70_000))))
        return HttpOrigin(self.servers[-1].url, SourceContext())


class TestHttpOrigin(OverNginx):
    pass


class TestHttpsOrigin(OverNginx):
    tls = True


class TestHttpOriginWithAToken(OverNginx):
    secrets = ("sEcret",)

    def make_source(self, root: Path) -> Source:
        return HttpOrigin(self.serve(root).url + "/{component}/{path}?token=sEcret", SourceContext())


class TestDirectoryOrigin(SourceContract):
    slack_bytes = LOCAL_SLICE_BYTES

    def make_source(self, root: Path) -> Source:
        return DirectoryOrigin(str(root), SourceContext())


class TestDirectoryOriginByUrl(SourceContract):
    slack_bytes = LOCAL_SLICE_BYTES

    def make_source(self, root: Path) -> Source:
        return open_origin(root.as_uri(), SourceContext())


class TestLocalFiles(SourceContract):
    """Places are claims: a file's size says nothing about them."""

    slack_bytes = LOCAL_SLICE_BYTES
    checks_file_size = False

    def make_source(self, root: Path) -> Source:
        source = LocalFiles("donors", len(self.work))
        for number, facts in enumerate(self.work.blobs):
            for item in self.work.items_of(number):
                source.claim(item, root / facts.component / facts.path, self.work.offset(item))
        return source


def test_local_files_may_be_more_than_a_process_may_open(tmp_path: Path) -> None:
    work = work_of(*([5] for _ in range(400)))
    source = LocalFiles("donors", len(work))
    for item in range(len(work)):
        path = tmp_path / str(item)
        path.write_bytes(b"12345")
        source.claim(item, path, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        for item in range(len(work)):
            source.fill(work.run(item, 1), 0, memoryview(bytearray(5)), RecordingFlow(LOCAL_SLICE_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        source.close()


def test_an_origin_without_ranges_says_so_and_streams(tmp_path: Path) -> None:
    run = SourceContract.work.run(4, 1)
    path = tmp_path / "model" / "deep" / "er"
    path.mkdir(parents=True)
    (path / "na me %é#?+&.bin").write_bytes(bytes(1003))
    with Nginx(tmp_path, ranges=False) as server:
        source = HttpOrigin(server.url, SourceContext())
        with pytest.raises(SourceFault) as caught:
            source.fill(run, 0, memoryview(bytearray(run.size)), RecordingFlow())
        assert caught.value.fault is Fault.NO_RANGES
        flow, data = RecordingFlow(), bytearray(b"x" * 1003)
        stream = source.stream(run, flow)
        stream.read_into(memoryview(data), flow)
        stream.close()
        source.close()
        assert data == bytes(1003)


# --- the example of the guide ------------------------------------------------------------------------------


def blocks_of_the_guide(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


def code_of_the_guide() -> types.SimpleNamespace:
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks_of_the_guide("python"):
        exec(compile(block, str(GUIDE), "exec"), names)
    return types.SimpleNamespace(**names)


class TestTheExampleOfTheGuide(SourceContract):
    guide = code_of_the_guide()

    def make_source(self, root: Path) -> Source:
        source: Source = self.guide.TestZipOrigin().make_source(root)
        return source


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's plug-in as an installed package: a module and the metadata that pip would write."""
    site = tmp_path / "site"
    info = site / "mypackage-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "mypackage").mkdir()
    (site / "mypackage" / "__init__.py").touch()
    (site / "mypackage" / "zipdir.py").write_text(blocks_of_the_guide("python")[0], "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
    (toml,) = blocks_of_the_guide("toml")
    line = toml.splitlines()[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[diachunk.sources]\n{line}\nhttp = mypackage.zipdir:ZipOrigin\n")
    monkeypatch.syspath_prepend(str(site))


def test_a_checkpoint_is_fetched_from_a_plug_in_by_its_url_alone(installed: None, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name, data in {"model/a.bin": bytes(5_000_000), "vocoder/b.bin": b"vocoder"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    parts = [f"{name}={root / name}" for name in ("model", "vocoder")]
    manifest = tmp_path / "m.json"
    diachunk.publish(parts, name="lab/zip", out=manifest, store=False)
    TestTheExampleOfTheGuide().make_source(root)
    snapshot = diachunk.fetch(manifest, origins=[f"zipdir://{tmp_path}/tree.zip"], home=tmp_path / "store")
    assert Path(snapshot.path("model/a.bin")).read_bytes() == bytes(5_000_000)
    assert Path(snapshot.path("vocoder/b.bin")).read_bytes() == b"vocoder"


def test_a_manifest_cannot_name_a_plug_ins_url_nor_a_plug_in_take_a_built_in_scheme(installed: None) -> None:
    assert type(open_origin("zipdir:///a.zip", SourceContext())).__name__ == "ZipOrigin"
    with pytest.raises(UsageError, match="only name http"):
        open_origin("zipdir:///a.zip", SourceContext(named_by_user=False))
    assert isinstance(open_origin("http://h/a", SourceContext()), HttpOrigin)
    with pytest.raises(UsageError, match="nothing here speaks gopher"):
        open_origin("gopher://h/a", SourceContext())


def test_a_plug_in_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("gopher", "no_such_package.gopher:Gopher", "diachunk.sources")
    monkeypatch.setattr(opening, "entry_points", lambda *, group: [entry])
    with pytest.raises(UsageError, match=r"gopher:// \(no_such_package.*No module named 'no_such_package'"):
        open_origin("gopher://h/a", SourceContext())
