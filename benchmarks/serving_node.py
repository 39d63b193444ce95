"""A node's server in a process of its own, until its standard input ends; says its port. For benchmarks.serving."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from diachunk.limits import DEFAULT
from diachunk.node.guard import Guard
from diachunk.node.serving.server import make_app, serve_on
from diachunk.node.serving.state import State
from diachunk.node.serving.uploads import Uploads
from diachunk.node.stock.shelf import Shelf
from diachunk.node.stock.wants import Wants
from diachunk.store.store import Store


async def serve(root: Path) -> None:
    store = Store.open(root, create=False)
    shelf = Shelf(store, secret=False)
    await shelf.start()
    state = State(shelf, Wants(), Uploads(DEFAULT.upload_slots, None, DEFAULT), Guard())
    listening = await serve_on(make_app(state), "127.0.0.1", [0])
    print(listening.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await listening.close()
    await shelf.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
