"""What every request must be, and what every answer says to browsers: the page is for its own address alone."""

import ipaddress
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
TOKEN = "token"
"""Name of the token in the address."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFUSED = "open the address that `leadline live` printed, with its token"


def new_token() -> str:
    """Return a random token of 192 bits."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Return whether an address reaches this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Hosts:
    """The names that a browser may know this server by; another may be an attacker's that resolves to this machine."""

    names: frozenset[str]
    any_address: bool  # whether addresses in numbers are among them: no name was resolved then

    @classmethod
    def of(cls, host: str, others: Collection[str] = ()) -> "Hosts":
        """Return the names of a server that listens on an address.

        Args:
            host: the address.
            others: further names, such as that of a reverse proxy.
        """
        names = {*LOOPBACK_NAMES, host, *others}
        if not is_loopback(host):
            names |= {socket.gethostname(), socket.getfqdn()}
        return cls(frozenset(name.lower() for name in names), not is_loopback(host))

    def allow(self, header: str) -> bool:
        """Return whether a Host header names this server, on whatever port: a tunnel may have another."""
        name = header.lower()
        if name.startswith("["):
            name, _, rest = name[1:].partition("]")
            if rest and not rest.startswith(":"):
                return False
        else:
            name = name.partition(":")[0]
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address


@dataclass(frozen=True)
class Guard:
    """An application that answers GET and HEAD from its own names, with the token if there is one."""

    app: ASGIApp
    hosts: Hosts
    token: str | None = None  # None: none is needed
    cookie: str = "leadline-live"  # which has the token after the first request; browsers share them between ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer: ASGIApp = self._refusal(scope) or self.app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that the application does not see; None: it does."""
        headers = Headers(scope=scope)
        if not self.hosts.allow(headers.get("host", "")):
            return PlainTextResponse("this server does not answer to that name; use localhost, or its address\n", 421)
        if scope["method"] not in METHODS:
            return PlainTextResponse("this page is only read\n", 405, {"Allow": ", ".join(METHODS)})
        if self.token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name == TOKEN and self._matches(value) for name, value in query):
            rest = urlencode([(name, value) for name, value in query if name != TOKEN])
            # one slash alone: two would name another server
            path = "/" + quote(scope["path"].lstrip("/\\"))
            response = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
            response.set_cookie(self.cookie, self.token, path="/", httponly=True, samesite="strict")
            return response
        if self._matches(_cookie(headers, self.cookie)):
            return None
        return PlainTextResponse(f"{REFUSED}\n", 403)

    def _matches(self, given: str | None) -> bool:
        """Return whether a text is the token, in a time that does not tell how much of it is right."""
        return (
            given is not None and self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())
        )


def _cookie(headers: Headers, name: str) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value
