"""The tools that measure: their arithmetic, and plots that say the same for the same figures."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest
from benchmarks import cost, faults, measure, plots, profile, resuming, run, size

import diachunk
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import decode
from diachunk.testing.bad_server import BadServer
from diachunk.testing.lines import DEAD, SILENT, Line
from fixtures.settings import clean_environment

SPEED = {
    "machine": "none",
    "places": {
        "onto tmpfs": {
            "size_bytes": 2 * 10**9,
            "wall_s": {"diachunk": [1.0, 2.0, 4.0], "curl -o": [2.0, 2.0, 2.0]},
        },
        "onto a disk": {"size_bytes": 2 * 10**9, "wall_s": {"diachunk": [2.5, 2.5, 2.5]}},
    },
}


def faulty(steps: int = 200) -> dict[str, object]:
    samples = [[step * 1_000_000, max(0, step - 20) * 900_000, step * 500_000] for step in range(steps)]
    figures: dict[str, object] = json.loads(json.dumps(faults.record(samples, 10**9)))
    return figures


# --- measuring ---------------------------------------------------------------------------------------------


def rows(*walls: list[float]) -> list[measure.Row]:
    return [measure.Row(str(n), [measure.Run(s, 0.0, 0) for s in each]) for n, each in enumerate(walls)]


def test_a_ratio_is_the_median_of_the_rounds_not_the_ratio_of_medians() -> None:
    ours, theirs = rows([1.0, 2.0, 4.0], [4.0, 4.0, 4.0])
    assert measure.ratio(ours, theirs) == 2.0
    ours, theirs = rows([1.0, 10.0, 2.0], [3.0, 10.0, 1.0])
    assert measure.ratio(ours, theirs) == 1.0
    assert measure.spread(ours, theirs) == "0.50-3.00"


def test_a_run_that_fails_is_no_measurement() -> None:
    with pytest.raises(SystemExit, match=r"bad ended with 5: no luck"):
        measure.run_once(
            measure.Contender(
                "bad", [sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(5)"]
            )
        )


def test_a_run_that_ends_as_it_should_is_measured() -> None:
    command = [
        sys.executable,
        "-c",
        "x = bytearray(64 << 20); x[::4096] = bytes(len(x[::4096])); raise SystemExit(5)",
    ]
    done = measure.run_once(measure.Contender("incomplete", command, exits=frozenset({5})))
    assert done.wall_s > 0
    assert 64 << 20 < done.peak_bytes < 512 << 20


def test_rounds_are_turned_round_and_the_first_does_not_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def once(contender: measure.Contender) -> measure.Run:
        order.append(contender.name)
        return measure.Run(float(len(order)), 0.0, 0)

    monkeypatch.setattr(measure, "run_once", once)
    a, b = measure.race([measure.Contender(name, []) for name in "ab"], 2, settle_s=0.0)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert [each.wall_s for each in a.runs] == [3.0, 6.0]
    assert [each.wall_s for each in b.runs] == [4.0, 5.0]


def test_figures_of_several_races_are_kept_side_by_side(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    measure.keep(file, "here", rows([1.0, 2.0]), 7)
    measure.keep(file, "there", rows([3.0]), 8)
    kept = json.loads(file.read_text())
    assert kept["places"] == {
        "here": {"size_bytes": 7, "wall_s": {"0": [1.0, 2.0]}},
        "there": {"size_bytes": 8, "wall_s": {"0": [3.0]}},
    }


def test_the_cost_beside_curl_leaves_out_the_hashing() -> None:
    assert cost.ratio(ours_s=3.0, hashing_s=0.4, curl_s=2.0) == pytest.approx(1.3)


def test_the_steps_of_a_chunk_add_up_to_the_fetch() -> None:
    totals = {"plain": 100.0, "hashed": 180.0, "written": 200.0, "source": 260.0, "fetch": 300.0}
    parts = profile.steps(totals, scheduling_us=12.0)
    assert [took for _, took in parts] == [100.0, 80.0, 20.0, 60.0, 12.0, 28.0]
    assert sum(took for _, took in parts) == totals["fetch"]


def test_the_plain_client_reads_ranges_over_one_connection(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    (tmp_path / "f.bin").write_bytes(data)
    view = memoryview(bytearray(300_000))
    with BadServer(tmp_path) as server:
        client = profile.PlainClient(int(server.url.rsplit(":", 1)[1]), "f.bin")
        for first in (0, 1, 500_000):
            client.fill(first, view)
            assert view == data[first : first + len(view)]
        client.close()
        assert [each.request.headers.get("range") for each in server.exchanges][-1] == "bytes=500000-799999"
        assert len({each.connection for each in server.exchanges}) == 1


# --- subjects ----------------------------------------------------------------------------------------------


def test_the_synthetic_manifest_is_that_of_a_terabyte() -> None:
    assert size.SHARDS * size.CHUNKS_A_SHARD == 250_000
    manifest = decode(size.terabyte(3, 40))
    assert (len(manifest.components[0].files), manifest.chunk_count) == (3, 120)
    assert manifest.total_bytes == 120 * CHUNK_BYTES
    work = size.work_of(size.terabyte(3, 40))
    assert len(work) == 120
    assert size.scheduling_s(work) > 0


def test_the_small_checkpoint_can_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch, tmp_path)
    made = size.small(tmp_path, 3, 50)
    snapshot = diachunk.fetch(made.manifest, origins=[str(made.root)])
    assert snapshot.report.fetched_bytes == sum(each.stat().st_size for each in made.files) == 3 * 50 * 512
    assert snapshot.manifest.chunk_count == 150


def test_the_full_store_lists_as_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch, tmp_path)
    resuming.full_store(tmp_path / "home", 3, checkpoints=2)
    held = diachunk.ls(tmp_path / "home").held
    assert [(each.complete, len(each.names)) for each in held] == [(True, 1)] * 2
    verified = diachunk.verify(home=tmp_path / "home")
    assert len(verified.files) == 40
    assert verified.ok


def test_the_tap_notes_when_bytes_first_pass(tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(bytes(1000))
    view = memoryview(bytearray(10))
    with BadServer(tmp_path) as server, resuming.Tap(int(server.url.rsplit(":", 1)[1])) as tap:
        assert (tap.asked_at, tap.answered_at) == (None, None)
        before = time.perf_counter()
        client = profile.PlainClient(int(tap.url.rsplit(":", 1)[1]), "f.bin")
        client.fill(0, view)
        client.close()
        times = [before, tap.asked_at or 0.0, tap.answered_at or 0.0, time.perf_counter()]
        assert times == sorted(times)


def test_lines_break_when_the_events_say() -> None:
    good = [Line(down_bps=1.0), Line(down_bps=2.0), Line(down_bps=3.0)]
    at = {second: faults.lines_at(faults.EVENTS, good, second) for second in (0.0, 3.0, 7.0, 12.0, 24.0)}
    assert at[0.0] == at[7.0] == at[24.0] == good
    assert at[3.0] == [DEAD, good[1], good[2]]
    assert at[12.0] == [good[0], SILENT, good[2]]


# --- the page and the plots --------------------------------------------------------------------------------


def test_only_the_part_that_was_run_is_rewritten() -> None:
    page = "head\n" + "\nsaid by hand\n".join(
        f"{run.BEGIN.format(name=name)}\nold {name}\n{run.END.format(name=name)}"
        for name in ("load", "load-cast")
    )
    page += f"\n{run.LAST}\ntail\n"
    once = run.filled(page, "load", "new")
    assert once == page.replace("old load\n", "new\n", 1)
    assert "old load-cast" in once
    assert run.filled(once, "load", "old load") == page


def test_a_part_that_was_never_run_comes_last() -> None:
    page = run.filled(f"head\n{run.LAST}\ntail\n", "swarm", "figures")
    part = f"{run.BEGIN.format(name='swarm')}\nfigures\n{run.END.format(name='swarm')}"
    assert page == f"head\n{part}\n\n{run.LAST}\ntail\n"


def test_the_page_has_a_place_for_every_part() -> None:
    page = run.PAGE.read_text()
    assert page.count(run.LAST) == 1
    for name in set(re.findall(r"<!-- measured: (.*) -->", page)):
        assert name in run.PARTS
        begin, end = run.BEGIN.format(name=name), run.END.format(name=name)
        assert page.count(begin) == page.count(end) == 1
        assert page.index(begin) < page.index(end)


def test_a_part_says_where_and_how_often_it_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.PARTS, "disk", lambda folder, rounds, size_mib: f"{rounds} of {size_mib}")
    text = run.measured(tmp_path, "disk", 3, 64)
    assert text.startswith("3 of 64\n\n2")
    assert measure.machine() in text
    assert text.endswith("; 3 interleaved rounds.")


def test_rates_come_from_a_running_count() -> None:
    counts = [0, 10, 20, 30, 30, 30, 30, 40]
    assert plots.rates(counts, step_s=0.5, over_s=1.0) == [20, 20, 20, 10, 0, 0, 10, 20]
    assert plots.rates([5], step_s=0.5) == [0.0]


@pytest.fixture(scope="module")
def drawings() -> dict[str, bytes]:
    pytest.importorskip("matplotlib", reason="plots need matplotlib (the dev extra)")
    return {"speed": plots.speed(SPEED), "faults": plots.faults(faulty())}


@pytest.mark.parametrize("name", ["speed", "faults"])
def test_a_plot_is_small_and_carries_no_date(drawings: dict[str, bytes], name: str) -> None:
    text = drawings[name].decode()
    assert len(text) < 60_000
    assert "</svg>" in text
    assert not re.search(r"20\d\d-\d\d-\d\d|dc:date|dc:creator|http://matplotlib|https://matplotlib", text)


def test_the_same_figures_give_the_same_plot(drawings: dict[str, bytes]) -> None:
    assert plots.speed(SPEED) == drawings["speed"]
    assert plots.faults(faulty()) == drawings["faults"]
    assert plots.faults(faulty(150)) != drawings["faults"]


@pytest.mark.parametrize("name", ["speed", "faults"])
def test_a_plot_has_no_background_and_no_black(drawings: dict[str, bytes], name: str) -> None:
    text = drawings[name].decode().lower()
    assert "#ffffff" not in text
    assert not re.search(r"(fill|stroke): #000000", text)
    # text that names no colour is black, which nobody sees on a dark page
    for style in re.findall(r"<text([^>]*)>", text):
        assert "fill: #" in style, style


def luminance(color: str) -> float:
    """Relative luminance (WCAG 2.2, "relative luminance")."""
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", ["#ffffff", "#0d1117"])
def test_text_and_lines_stand_out_from_light_and_dark_pages(paper: str) -> None:
    def contrast(color: str) -> float:
        darker, lighter = sorted((luminance(color), luminance(paper)))
        return (lighter + 0.05) / (darker + 0.05)

    assert contrast(plots.INK) > 4
    assert min(contrast(each) for each in (plots.OURS, *plots.SOURCES)) > 3


def test_what_is_measured_is_drawn_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib (the dev extra)")
    figures, into = tmp_path / "figures", tmp_path / "docs" / "plots"
    figures.mkdir()
    assert plots.draw(figures, into) == []
    assert not into.exists()
    (figures / "speed.json").write_text(json.dumps(SPEED))
    assert plots.draw(figures, into) == [into / "speed.svg"]
    assert (into / "speed.svg").read_bytes() == plots.speed(json.loads((into / "speed.json").read_text()))
