"""The web application: pages, the events that update them, a style sheet and a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import get_args

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from leadline.live.guard import Guard, Hosts
from leadline.live.ledger import LEAST_SECONDS, Ledger
from leadline.live.pages import Pages, Parts, View, script, style_sheet
from leadline.store import TrialState
from leadline.store.following import Follower

MOST_LISTENERS = 50
"""Pages that are updated at once."""
ALIVE_SECONDS = 10.0
"""Seconds after which a page on which nothing changes is told that the server is still there."""

WAKE_SECONDS = 0.1
"""Seconds within which an open page notices that the server is about to end."""


def make_app(
    store: Follower,
    hosts: Hosts,
    token: str | None = None,
    cookie: str = "leadline-live",
    stopping: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """Return the application that shows a store.

    Args:
        store: from `Follower.follow`.
        hosts: the names that browsers may know the server by.
        token: what the address of the first request must have; None: nothing.
        cookie: name of the cookie that has the token afterwards.
        stopping: whether the server is about to end, so that no page is updated any more.
    """
    pages = Pages(Ledger(store))
    listeners = 0

    def page(request: Request) -> Response:
        html, found = pages.page(_view(request), datetime.now(UTC))
        return HTMLResponse(html, 200 if found else 404)

    async def events(request: Request) -> Response:
        media = "text/event-stream"
        if request.method == "HEAD":
            return Response(media_type=media)
        if listeners >= MOST_LISTENERS:
            return PlainTextResponse(f"{MOST_LISTENERS} pages are open already; close some\n", 503)
        return StreamingResponse(listen(_view(request)), media_type=media)

    async def listen(view: View) -> AsyncIterator[str]:
        nonlocal listeners
        listeners += 1
        try:
            async for text in follow(lambda: pages.parts(view), stopping):
                yield text
        finally:
            listeners -= 1

    def style(request: Request) -> Response:
        return Response(style_sheet(), media_type="text/css")

    def code(request: Request) -> Response:
        return Response(script(), media_type="text/javascript")

    routes = [
        Route("/", page),
        Route("/study/{study}", page),
        Route("/events/", events),
        Route("/events/study/{study}", events),
        Route("/live.css", style),
        Route("/live.js", code),
    ]
    return Guard(Starlette(routes=routes), hosts, token, cookie)


async def follow(read: Callable[[], Parts], stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield server-sent events: all parts of a page at first, then those that have changed."""
    sent: dict[str, str] = {}
    clock = asyncio.get_running_loop().time
    last = clock()
    yield "retry: 2000\n\n"
    while not stopping():
        parts = await run_in_threadpool(read)
        changed = {name: html for name, html in parts.items() if sent.get(name) != html}
        sent |= changed
        if changed or clock() - last >= ALIVE_SECONDS:
            yield f"event: parts\ndata: {json.dumps(changed)}\n\n"
            last = clock()
        due = clock() + LEAST_SECONDS
        while clock() < due and not stopping():
            await asyncio.sleep(WAKE_SECONDS)


def _view(request: Request) -> View:
    """Return what a request asks for; what cannot be understood stands for the first page of everything."""
    state, number = request.query_params.get("state"), request.query_params.get("page", "")
    known: dict[str, TrialState] = {one: one for one in get_args(TrialState)}
    page = int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else 1
    return View(request.path_params.get("study"), known.get(state or ""), max(1, page))
