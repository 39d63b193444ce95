"""The peer server: routes, what holds for all requests, and listening. docs/protocol.md is the contract."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from diachunk.node.guard import asker
from diachunk.node.ports import listen
from diachunk.node.serving import answers_about, answers_bytes, answers_have, answers_stated
from diachunk.node.serving.door import HEADER_BYTES_MAX, Door, Hall
from diachunk.node.serving.replies import BODY_BYTES_MAX, Refused, failure
from diachunk.node.serving.state import STATE, State

_LOG = logging.getLogger("diachunk.node")
_HALL: web.AppKey[Hall] = web.AppKey("diachunk_hall", Hall)
_IDLE_S = 60.0
_BACKLOG = 1024
_SHUTDOWN_S = 0.5
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES: tuple[tuple[str, str, str, Handler], ...] = (
    ("GET", "/v1/node", "node", answers_about.node),
    ("GET", "/v1/manifests/{id}", "manifest", answers_bytes.manifest),
    ("GET", "/v1/manifests/{id}/have", "have", answers_have.have),
    ("GET", "/v1/refs/{name:[^/]+(?:/[^/]+)?}", "refs", answers_about.refs),
    ("POST", "/v1/have", "have_digests", answers_have.have_digests),
    ("GET", "/v1/statements/{id}", "statement", answers_stated.manifests),
    ("GET", "/v1/stated/{key}", "stated", answers_stated.pieces),
    ("GET", "/v1/blobs/{digest}", "blob", answers_bytes.blob),
    ("GET", "/v1/chunks/{digest}", "chunk", answers_bytes.chunk),
    ("POST", "/v1/peers", "peers", answers_about.peers),
    ("GET", "/metrics", "metrics", answers_about.metrics),
    ("GET", "/", "page", answers_about.for_people),
)


def make_app(state: State) -> web.Application:
    """The application of one node. Listens nowhere yet: see `serve_on`."""
    app = web.Application(middlewares=[_for_all], client_max_size=BODY_BYTES_MAX)
    app[STATE] = state
    app[_HALL] = Hall(state.guard, state.limits, state.metrics, state.refusals)
    for method, path, kind, handler in ROUTES:
        resource = app.router.add_resource(path, name=kind)
        resource.add_route(method, handler)
        if method == "GET":
            resource.add_route("HEAD", handler)
    return app


@web.middleware
async def _for_all(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Who may ask (P11 to P13), errors as JSON (P1), and a count of both."""
    state, hall = request.app[STATE], request.app[_HALL]
    transport = request.transport
    hall.begins(transport, body=request.can_read_body)
    kind = _kind(request)
    try:
        response = await _answer(request, handler, state)
        state.metrics.answered(kind, response.status)
        return response
    finally:
        hall.ends(transport)


async def _answer(request: web.Request, handler: Handler, state: State) -> web.StreamResponse:
    refusal = state.guard.why_not(request)
    if refusal is not None:
        status, why = refusal
        state.refusals.note(asker(request), why)
        response = failure(status, why)
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="diachunk"'
        response.force_close()
        return response
    try:
        return await handler(request)
    except Refused as error:
        return failure(error.status, str(error))
    except web.HTTPRequestEntityTooLarge:
        return failure(413, "a body is at most 1 MiB")
    except web.HTTPException as error:
        response = failure(error.status, error.reason.lower())
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


def _kind(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return (resource.name if resource is not None else None) or "other"


@dataclass(slots=True)
class Listening:
    """A server that runs. `port`: the one it listens on."""

    port: int
    _state: State
    _runner: web.AppRunner
    _servers: list[asyncio.Server]
    _tasks: list[asyncio.Task[None]]

    async def close(self) -> None:
        """Stops listening, answers who listens to it, gives other requests a moment. Bounded in time."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        self._state.shelf.wake_listeners()
        await self._runner.cleanup()


async def serve_on(
    app: web.Application, host: str, ports: Iterable[int], sockets: list[socket.socket] | None = None
) -> Listening:
    """Listens on the first free port, on `host`; "": on all addresses of this machine.

    Args:
        sockets: listen on these, which do already, instead.

    Raises:
        PortTaken: none is free.
        UsageError: `host` is no address of this machine.
    """
    state, hall = app[STATE], app[_HALL]
    listening = sockets if sockets is not None else listen(host, ports)
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=_IDLE_S,
        max_line_size=HEADER_BYTES_MAX // 2,
        max_field_size=HEADER_BYTES_MAX // 2,
        shutdown_timeout=_SHUTDOWN_S,
        lingering_time=1.0,
    )
    await runner.setup()
    server = runner.server
    if server is None:
        raise RuntimeError("the runner has no server")
    loop = asyncio.get_running_loop()
    state.port = listening[0].getsockname()[1]
    servers = [
        await loop.create_server(lambda: Door(hall, server), sock=each, backlog=_BACKLOG)
        for each in listening
    ]
    tasks = [
        loop.create_task(_follow_wants(state), name="diachunk-wants"),
        loop.create_task(_learn_name(state), name="diachunk-name"),
    ]
    _LOG.info("listening on %s port %d", host or "all addresses", state.port)
    return Listening(state.port, state, runner, servers, tasks)


async def _follow_wants(state: State) -> None:
    """What is fetched here is part of what is said of each checkpoint (P5)."""
    known: set[bytes] = set()
    while True:
        wanted = {want.manifest_id for want in state.wants.all()}
        for manifest_id in wanted | known:
            feed = state.shelf.feed(manifest_id)
            if feed is not None:
                feed.want(state.wants.of(manifest_id))
        known = wanted
        await state.wants.changed.wait()


async def _learn_name(state: State) -> None:
    """This machine's full name, which only the resolver may know."""
    with suppress(OSError):
        state.guard.also_called(await asyncio.get_running_loop().run_in_executor(None, socket.getfqdn))
