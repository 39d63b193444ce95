"""Items and places: equal chunks once, neighbours stay neighbours, what is left out is no item."""

from __future__ import annotations

import pytest

from diachunk.bitmap import Bitmap
from diachunk.schedule.work import BlobFacts, Place, WorkList
from schedule_world import blob_facts

A = blob_facts("a", [10, 20, 30, 40], ["w", "x", "y", "w10"])
B = blob_facts("b", [20, 5, 30], ["x", "v", "y"])


def test_items_follow_file_order_and_equal_chunks_are_one_item_with_two_places() -> None:
    work = WorkList([A, B])
    assert len(work) == 5
    assert [work.size(item) for item in range(5)] == [10, 20, 30, 40, 5]
    assert list(work.places(1)) == [Place(0, 1, 10), Place(1, 0, 0)]
    assert list(work.places(2)) == [Place(0, 2, 30), Place(1, 2, 25)]
    assert list(work.places(4)) == [Place(1, 1, 20)]
    assert work.total_bytes == 105
    assert [work.places_in(number) for number in (0, 1)] == [4, 3]
    assert [work.items_of(number) for number in (0, 1)] == [range(4), range(4, 5)]


def test_an_equal_chunk_within_one_file_is_one_item_too() -> None:
    work = WorkList([blob_facts("c", [7, 7, 7], ["k", "k", "k"])])
    assert len(work) == 1
    assert [place.offset for place in work.places(0)] == [0, 7, 14]
    assert work.places_in(0) == 3


def test_for_verifying_every_place_is_an_item() -> None:
    work = WorkList([A, B], distinct=False)
    assert len(work) == 7
    assert work.items_of(1) == range(4, 7)
    assert all(len(list(work.places(item))) == 1 for item in range(7))
    assert work.total_bytes == A.size + B.size


def test_what_is_left_out_is_no_item_nor_place() -> None:
    work = WorkList([A, B], leave_out=[Bitmap(4, [1]), None])
    assert [work.digest(item) for item in range(len(work))] == [
        A.chunks.digest(0),
        A.chunks.digest(2),
        A.chunks.digest(3),
        B.chunks.digest(0),
        B.chunks.digest(1),
    ]
    assert list(work.places(3)) == [Place(1, 0, 0)], "left out in one file, wanted in the other"
    assert work.places_in(0) == 3


def test_neighbours_are_those_that_touch_in_one_file() -> None:
    whole = WorkList([A, B])
    assert [whole.adjacent(item) for item in range(5)] == [True, True, True, False, False]
    holed = WorkList([A], leave_out=[Bitmap(4, [1])])
    assert [holed.adjacent(item) for item in range(3)] == [False, True, False]


def test_a_run_says_what_one_request_asks_for() -> None:
    work = WorkList([B, A])
    run = work.run(1, 2)
    assert run.blob is B
    assert (run.offset, run.size, run.items) == (20, 35, range(1, 3))
    assert [(ref.offset, ref.end, ref.blob) for ref in run.refs] == [(20, 25, B.digest), (25, 55, B.digest)]
    assert run.refs[0].digest == B.chunks.digest(1)
    assert (work.blob_of(1), work.chunk_of(1), work.offset(1)) == (0, 1, 20)


def test_an_empty_file_has_no_items_and_does_not_shift_the_others() -> None:
    work = WorkList([blob_facts("empty", []), B, blob_facts("none", [])])
    assert [work.items_of(number) for number in range(3)] == [range(0), range(3), range(3, 3)]
    assert [work.places_in(number) for number in range(3)] == [0, 3, 0]
    assert work.blob_of(0) == 1


@pytest.mark.parametrize(("component", "label"), [("model", "model/a.bin"), ("", "a.bin")])
def test_a_file_is_known_by_component_and_path(component: str, label: str) -> None:
    assert BlobFacts(b"", 0, A.chunks, component, "a.bin").label == label
