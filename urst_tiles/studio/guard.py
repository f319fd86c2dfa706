"""Who may ask the studio: only pages that it served itself, to a browser that was given its address."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The hash of a style of no letters: one stands in the page and keeps OpenSeadragon from writing its own.
EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"

#: What a page of the studio may do: load from the studio alone, and run no script or style written into it.
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY}; img-src 'self' blob: data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

#: The pages that may hold a studio that is opened for a notebook in a frame: those of servers of notebooks on
#: this machine, and of VS Code.
NOTEBOOKS = "http://localhost:* http://127.0.0.1:* vscode-webview: https://*.vscode-cdn.net"

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def new_token() -> str:
    """192 random bits as letters, digits, - and _."""
    return secrets.token_urlsafe(24)


class Guard:
    """Refuses requests that did not come by the address that the studio printed.

    The address begins with the token. The header Host must be one of ``hosts``: a name of another site that
    was made to lead to this machine is not (DNS rebinding). Where a browser says which page asks, it must be
    a page of this address; with ``framed`` a page of a notebook may hold a page of this address in a frame.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str], framed: bool = False) -> None:
        self._app, self._token, self._hosts, self._framed = app, token, hosts, framed
        self._headers = dict(HEADERS)
        if framed:
            policy = POLICY.replace("frame-ancestors 'none'", f"frame-ancestors {NOTEBOOKS}")
            self._headers["Content-Security-Policy"] = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with the headers that keep a page to itself."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        why = self._refusal(scope)
        app = self._app if why is None else PlainTextResponse(why, 403)
        await app(scope, receive, sent)

    def _refusal(self, scope: Scope) -> str | None:
        """Why a request is refused; None if it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts:
            return "This is not the name under which the studio is served."
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return "The studio answers its own pages alone."
        asks = headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        if not (asks or (self._framed and _is_frame(scope, headers))):
            return "The studio answers its own pages alone."
        given = scope["path"].split("/", 2)[1] if scope["path"].startswith("/") else ""
        if not secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode()):
            return "The address lacks the secret that the studio printed when it started."
        return None


def _is_frame(scope: Scope, headers: Headers) -> bool:
    """Whether a browser asks for a page to show it in a frame of another page, which cannot read it."""
    asked = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return scope["method"] == "GET" and asked == ("navigate", "iframe")
