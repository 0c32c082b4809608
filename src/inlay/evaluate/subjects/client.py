"""JSON over HTTP to a server that completes: connections kept open, one for each thread, and failures in one line.

It decides what is worth another try: a busy or stumbling server (408, 425, 429, 500, 502, 503, 504, 529), a connection
that broke; the wait doubles each time, or is what the server asks for (`Retry-After`). A request refused for what it
says is not sent again. It refuses addresses that hold a password or a query, redirects, certificates that do not fit,
answers that are no JSON, and answers without end. Proxies of the environment are not used.

The key is read from INLAY_API_KEY, which goes to the server that was named, or else from OPENAI_API_KEY, which goes
only over https or to this machine: it was set for another purpose. It stands in no message, even where a server
repeats it.
"""

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import SplitResult, urlsplit

from inlay.config import BadInput, InlayError
from inlay.config.files import parse_json

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
LONGEST_PAUSE = 60.0
LARGEST_REPLY = 64 << 20
_LOCAL = ("localhost", "127.0.0.1", "::1")
_SHOWN = 200


class Refused(InlayError):
    """The server understood and said no. `status` is its HTTP status, `reason` its words in one line."""

    def __init__(self, status: int, reason: str, where: str) -> None:
        super().__init__(f"{where} answered {status}: {reason}")
        self.status = status
        self.reason = reason


class Client:
    """A server at an address. Safe to use from several threads."""

    def __init__(self, url: str, *, timeout: float = 120.0, attempts: int = 6, pause: float = 0.5) -> None:
        """`url`: scheme, host and a path that every request's path follows. `timeout`: seconds for one answer;
        `attempts`: tries of one request; `pause`: seconds before the second, doubled each time."""
        self._parts = address_of(url)
        self.base = f"{self._parts.scheme}://{self._parts.netloc}{self._parts.path.rstrip('/')}"
        self._timeout = timeout
        self._attempts = attempts
        self._pause = pause
        self._key = _api_key(self._parts)
        self._reached = False
        self._held = threading.local()
        self._all: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._dropped = threading.Event()

    def get(self, path: str) -> Any | None:
        """What the server has there; None when it has nothing, or no JSON. Raises InlayError when it does not answer,
        or wants another key."""
        try:
            return self._ask("GET", path, None)
        except Refused as error:
            if error.status in (401, 403):
                raise
            return None
        except NoJson:
            return None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to `body`. Raises Refused, and InlayError when there is no answer that can be read."""
        return self._ask("POST", path, json.dumps(body).encode())

    def drop(self) -> None:
        """Ends the requests that wait for an answer: they fail, and are not sent again. Later ones connect anew."""
        dropped, self._dropped = self._dropped, threading.Event()
        dropped.set()
        with self._lock:
            connections, self._all = self._all, []
            self._held = threading.local()
        for connection in connections:
            # A thread that waits in a read is only woken by a shutdown.
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        """Ends all connections."""
        self.drop()

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        where = f"{self.base}{path}"
        reason, asked_pause = "", None
        dropped = self._dropped
        for attempt in range(self._attempts):
            if attempt:
                pause = self._pause * 2 ** (attempt - 1) if asked_pause is None else asked_pause
                dropped.wait(min(pause, LONGEST_PAUSE))
            if dropped.is_set():
                raise InlayError(f"the connection to {self.base} was closed")
            try:
                status, content, asked = self._once(method, path, body)
            except TimeoutError:
                raise InlayError(
                    f"{where} gave no answer in {self._timeout:g} s: is the server busy, or too slow for the budget?"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                reason, asked_pause = self._failure(error), None
                continue
            self._reached = True
            if 200 <= status < 300:
                return _json(content, where)
            reason = self._hidden(_message(content) or http.client.responses.get(status, "no reason given"))
            if status not in AGAIN:
                if 300 <= status < 400:
                    raise Refused(status, "it sends elsewhere; give the address where the server is itself", where)
                raise Refused(status, reason, where)
            reason, asked_pause = f"status {status}: {reason}", asked
        raise InlayError(f"{where} failed {self._attempts} times ({reason}): see to the server, then run this again")

    def _failure(self, error: Exception) -> str:
        """The words for a failed connection. Raises InlayError where another try cannot help."""
        if isinstance(error, ssl.SSLError):
            advice = "give its http:// address, or one whose certificate this machine trusts"
            raise InlayError(f"no secure connection to {self.base} ({_plain(error.reason or str(error))}); {advice}")
        if isinstance(error, socket.gaierror):
            raise InlayError(f"there is no host '{self._parts.hostname}' ({_plain(error.strerror or str(error))})")
        if isinstance(error, ConnectionRefusedError) and not self._reached:
            raise InlayError(f"no server answers at {self.base} (connection refused): start it, or check the address")
        return _plain(getattr(error, "strerror", None) or str(error) or type(error).__name__)

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes, float | None]:
        """Status, content, and the pause that was asked for. Raises OSError and HTTPException."""
        connection = self._connection()
        deadline = time.monotonic() + self._timeout
        headers = {"Accept": "application/json", "User-Agent": "inlay"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request(method, f"{self._parts.path.rstrip('/')}{path}", body, headers)
            reply = connection.getresponse()
            content = bytearray()
            while part := reply.read1(1 << 16):
                content += part
                if len(content) > LARGEST_REPLY:
                    raise InlayError(f"{self.base}{path} answers with more than {LARGEST_REPLY >> 20} MiB")
                if time.monotonic() > deadline:
                    raise TimeoutError
            reply.close()  # read1 leaves that to others, and the connection would take no further request
            return reply.status, bytes(content), _seconds(reply.getheader("Retry-After"))
        except BaseException:
            # Whatever is left on this connection belongs to no later request.
            connection.close()
            raise

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._held, "connection", None)
        if found is None:
            host, port = self._parts.hostname or "", self._parts.port
            if self._parts.scheme == "https":
                context = ssl.create_default_context()
                found = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
            else:
                found = http.client.HTTPConnection(host, port, timeout=self._timeout)
            self._held.connection = found
            with self._lock:
                self._all.append(found)
        return found

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class NoJson(InlayError):
    """An answer that is no JSON."""


def address_of(url: str) -> SplitResult:
    """The parts of a server's address. Raises BadInput in one line; what is secret in it is not repeated."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadInput("the server's address cannot be read: write http://HOST:PORT") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadInput(
            f"the address of {parts.hostname} holds more than host, port and path: put a key in the environment"
            " variable INLAY_API_KEY, and leave out names, passwords and queries"
        )
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or port == 0:
        raise BadInput(f"'{_plain(url)}' is no server's address: write http://HOST:PORT")
    return parts


def _api_key(parts: SplitResult) -> str | None:
    name = "INLAY_API_KEY"
    key = os.environ.get(name, "").strip()
    if not key and (parts.scheme == "https" or parts.hostname in _LOCAL):
        name = "OPENAI_API_KEY"
        key = os.environ.get(name, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise BadInput(f"the environment variable {name} holds characters that no key has; set it again")
    return key or None


def _json(content: bytes, where: str) -> Any:
    try:
        return parse_json(content)
    except (ValueError, RecursionError):
        start = content.lstrip()[:1]
        kind = "a web page" if start == b"<" else "nothing" if not start else "something that is no JSON"
        raise NoJson(f"{where} answers with {kind}: is it a completion server's address?") from None


def _message(content: bytes) -> str:
    """What a server says in an error, in whatever form."""
    try:
        found = parse_json(content)
    except (ValueError, RecursionError):
        return "" if content.lstrip()[:1] == b"<" else _plain(content.decode("utf-8", errors="replace"))
    for _ in range(3):
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, dict):
            found = next((found[key] for key in ("error", "message", "detail", "msg") if found.get(key)), found)
    return _plain(found if isinstance(found, str) else json.dumps(found))


def _plain(text: str) -> str:
    """One short line without control characters."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


def _seconds(header: str | None) -> float | None:
    try:
        found = float(header or "")
    except ValueError:
        return None
    return found if 0.0 <= found < float("inf") else None
