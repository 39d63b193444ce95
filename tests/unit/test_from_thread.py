"""A thread's events, awaited: in order, its result last, its error raised, and nobody leaves it running."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import aclosing

import pytest

from diachunk.api.asynchronous import from_thread
from diachunk.errors import Interrupted

Listen = Callable[[int], None]


def test_events_come_in_order_and_the_result_last() -> None:
    def run(listen: Listen) -> str:
        for number in range(100):
            listen(number)
        return "done"

    async def main() -> list[int | str]:
        return [event async for event in from_thread(run)]

    assert asyncio.run(main()) == [*range(100), "done"]


def test_an_error_comes_after_what_was_told_before_it() -> None:
    def run(listen: Listen) -> str:
        listen(1)
        raise ValueError("no")

    heard: list[int | str] = []

    async def main() -> None:
        async for event in from_thread(run):
            heard.append(event)

    with pytest.raises(ValueError, match="no"):
        asyncio.run(main())
    assert heard == [1]


def test_many_run_at_once() -> None:
    all_here = threading.Barrier(40)

    def run(listen: Listen) -> int:
        return all_here.wait(20)

    async def main() -> list[int]:
        async def one() -> int:
            return [event async for event in from_thread(run)][-1]

        return await asyncio.gather(*(one() for _ in range(40)))

    assert sorted(asyncio.run(main())) == list(range(40))


@pytest.mark.parametrize("way", ["leaves", "is cancelled"])
def test_who_leaves_early_leaves_no_thread(way: str) -> None:
    stopped, begun = threading.Event(), threading.Event()

    def run(listen: Listen) -> str:
        try:
            while True:
                listen(0)
                begun.set()
                stopped.wait(0.01)
        except Interrupted:
            stopped.set()
            raise

    async def leave() -> None:
        async with aclosing(from_thread(run)) as events:
            async for _ in events:
                return

    async def be_cancelled() -> None:
        async def read() -> None:
            async for _ in from_thread(run):
                pass

        task = asyncio.create_task(read())
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    complaints: list[dict[str, object]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        await (leave() if way == "leaves" else be_cancelled())
        assert stopped.is_set()
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 20))
    assert complaints == []
