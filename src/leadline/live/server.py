"""The server: a socket, the address that is printed, and its end."""

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from leadline.errors import LeadlineError
from leadline.live.app import make_app
from leadline.live.guard import TOKEN, Hosts, is_loopback, new_token
from leadline.store.following import Follower

GRACE_SECONDS = 2
"""Seconds that open pages get to be told of the end."""


def serve(runs: Path, url: str | None, host: str, port: int, with_token: bool, say: Callable[[str], None]) -> None:
    """Show a store until the process is interrupted.

    Args:
        runs: the runs folder.
        url: of the store; None: the one in the runs folder.
        host: the address to listen on; one that others reach needs a token.
        port: 0: any that is free.
        with_token: whether a token is needed on the loopback interface too.
        say: prints a line.

    Raises:
        LeadlineError: the store cannot be followed, or the address cannot be listened on.
        KeyboardInterrupt: the process was interrupted.
    """
    with Follower.follow(runs, url) as store, listen(host, port) as opened:
        port = opened.getsockname()[1]
        token = new_token() if with_token or not is_loopback(host) else None
        server: uvicorn.Server | None = None
        app = make_app(
            store,
            Hosts.of(host),
            token,
            f"leadline-live-{port}",  # because cookies are shared between the ports of a machine
            lambda: server is not None and server.should_exit,
        )
        config = uvicorn.Config(
            app,
            log_level="error",  # what goes wrong, and no addresses, which may have tokens
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        server = uvicorn.Server(config)
        say(f"live: {address(host, port, token)} (Ctrl-C ends it)")
        server.run(sockets=[opened])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        LeadlineError: the port is taken, or the address is not of this machine.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LeadlineError(f"port {port} is taken; choose another, or --port 0 for any that is free") from None
        reason = error.strerror or str(error)
        raise LeadlineError(f"{host}, port {port}: cannot be listened on: {reason}; choose another address") from None


def address(host: str, port: int, token: str | None) -> str:
    """Return the address to open in a browser."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + ("" if token is None else f"?{TOKEN}={token}")
