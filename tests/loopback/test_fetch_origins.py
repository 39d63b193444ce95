"""What is fetched, from real servers, by every kind of origin that a user can name."""

from __future__ import annotations

from pathlib import Path

import pytest

from diachunk.testing.bad_server import BadServer
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, assert_same_files, assert_store_is_right, published, tree
from fixtures.watch import failed_fetch, fetch

pytestmark = pytest.mark.loopback


def test_one_origin_brings_every_byte_once_over_a_few_kept_connections(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root) as origin:
        done = fetch(small, origin.url, home=home)
        assert_same_files(done.snapshot.directory, small)
        assert_store_is_right(home)
        requests = origin.requests()
        assert sum(each.body_bytes for each in requests) == small.total_bytes == done.report.fetched_bytes
        assert {each.status for each in requests} <= {200, 206}
        assert len({each.connection for each in requests}) <= 8
        assert len(requests) > len({each.connection for each in requests})
        assert all(each.user_agent.startswith("diachunk/") for each in requests)


def test_a_fast_and_a_slow_origin_share_the_work_by_their_speed(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, rate_bps=8_000_000) as fast, Nginx(small.root, rate_bps=1_500_000) as slow:
        done = fetch(small, slow.url, fast.url, home=home)
        assert_same_files(done.snapshot.directory, small)
        by_fast, by_slow = fast.bytes_sent(), slow.bytes_sent()
        assert by_fast > 2 * by_slow > 0
        assert by_fast + by_slow <= small.total_bytes + 10 * 1024 * 1024


def test_an_unnamed_component_lies_directly_under_the_prefix(tmp_path: Path, home: Path) -> None:
    plain = published(tree(tmp_path / "plain", {"weights.bin": bytes(5_000_000), "sub/config.json": b"{}"}))
    with Nginx(plain.root) as origin:
        done = fetch(plain, f"{origin.url}/", home=home)
        assert_same_files(done.snapshot.directory, plain)
        assert {each.path for each in origin.requests()} == {"/weights.bin", "/sub/config.json"}


def test_a_template_says_where_component_and_path_go(small: Checkpoint, tmp_path: Path, home: Path) -> None:
    files = tmp_path / "files" / "v1"
    files.mkdir(parents=True)
    (files / "the model").symlink_to(small.root / "model")
    (files / "the vocoder").symlink_to(small.root / "vocoder")
    with Nginx(tmp_path / "files") as origin:
        done = fetch(small, f"{origin.url}/v1/the%20{{component}}/{{path}}", home=home)
        assert_same_files(done.snapshot.directory, small)


def test_a_query_of_a_prefix_goes_with_every_file(small: Checkpoint, home: Path) -> None:
    with BadServer(small.root) as origin:
        done = fetch(small, f"{origin.url}/?sig=abc", home=home)
        assert {each.request.path.partition("?")[2] for each in origin.exchanges} == {"sig=abc"}
    assert_same_files(done.snapshot.directory, small)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_directory_is_an_origin(small: Checkpoint, home: Path, prefix: str) -> None:
    done = fetch(small, f"{prefix}{small.root}", home=home)
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    assert done.report.fetched_bytes == small.total_bytes


def test_names_beyond_ascii_are_fetched(tmp_path: Path, home: Path) -> None:
    names = ["Gewichte für Übung.bin", "重み/モデル.bin", "100%.bin", "a&b=c#d?.txt", "[x] {y}~!.bin"]
    files = tree(tmp_path / "served", {f"model/{name}": name.encode() * 1000 for name in names})
    checkpoint = published(files)
    with Nginx(checkpoint.root) as origin:
        done = fetch(checkpoint, origin.url, home=home)
    assert_same_files(done.snapshot.directory, checkpoint)


def test_two_thousand_small_files_arrive(tmp_path: Path, home: Path) -> None:
    names = {f"shard-{number % 20}/{number}.bin": b"%d " % number * (number % 50) for number in range(2000)}
    checkpoint = published(tree(tmp_path / "served", {**names, "top.txt": b"top"}))
    with Nginx(checkpoint.root) as origin:
        done = fetch(checkpoint, origin.url, home=home)
        assert len({each.connection for each in origin.requests()}) <= 16
    assert_same_files(done.snapshot.directory, checkpoint)
    assert_store_is_right(home)


def test_without_any_origin_the_error_says_how_to_name_one(small: Checkpoint, home: Path) -> None:
    error = failed_fetch(small, home=home)
    assert "no origin is known" in error.message
    assert "--origin" in error.hint
