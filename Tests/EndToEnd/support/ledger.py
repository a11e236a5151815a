"""A small user service: the quota ledger, with all the ways in which such a service can let its callers down.

It honours `Idempotency-Key`, as `USER_SERVICE_IDEMPOTENT=true` promises: a key is applied once, however late it arrives, and
its answer is given again. It knows nothing else: a decrement under a new key takes back one, whether or not there was an
increment.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JWT_SECRET = "end-to-end-tests-only-0123456789abcdef"

_USAGE_PATH = re.compile(r"/api/internal/quotas/user/([^/]+)/usage")


@dataclasses.dataclass(frozen=True)
class Call:
    """One request that arrived."""

    key: str
    user: str
    device: str
    operation: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


@dataclasses.dataclass(frozen=True)
class Action:
    """What the ledger does with a request instead of answering 200."""

    status: int = 200
    applies: bool = True          # whether the ledger is changed
    answers: bool = True          # whether the caller is told
    delay: float = 0              # seconds before anything else happens
    apply_after: float = 0        # seconds after the lost answer until the change happens
    retry_after: str | None = None
    body: dict[str, Any] | None = None
    page: str | None = None       # instead of JSON, as a gateway writes it
    location: str | None = None


def refuse(status: int = 403, message: str = "quota exceeded") -> Action:
    return Action(status=status, applies=False, body={"statusCode": status, "message": message})


def fail(status: int = 500) -> Action:
    return Action(status=status, applies=False, body={"statusCode": status, "message": "internal error"})


def gateway(status: int, *, applies: bool = False) -> Action:
    """What a gateway before the service answers; with `applies` after it had passed the request on."""
    return Action(status=status, applies=applies, page=f"<html><body><h1>{status}</h1></body></html>")


def redirect(status: int, location: str) -> Action:
    return Action(status=status, applies=False, location=location, page="<html>moved</html>")


def lose_reply() -> Action:
    """Applies the change, then closes the connection without a word."""
    return Action(answers=False)


def drop() -> Action:
    """Closes the connection without doing anything."""
    return Action(applies=False, answers=False)


def late(seconds: float) -> Action:
    """Closes the connection, and applies the change that long afterwards."""
    return Action(answers=False, apply_after=seconds)


def hang(seconds: float) -> Action:
    return Action(delay=seconds)


def throttle(retry_after: str = "1") -> Action:
    return Action(status=429, applies=False, retry_after=retry_after, body={"message": "slow down"})


@dataclasses.dataclass
class _Rule:
    action: Action
    matches: Callable[[Call], bool]
    left: int | None


class Ledger:
    """The server. `url` is what the server under test gets as USER_SERVICE_URL."""

    def __init__(
        self, secret: str = JWT_SECRET, tls: ssl.SSLContext | None = None, honours_keys: bool = True, port: int = 0
    ) -> None:
        """honours_keys: as it was told; without, everything that arrives is applied."""
        self.honours_keys = honours_keys
        self._secret = secret.encode()
        self._lock = threading.Lock()
        self.calls: list[Call] = []
        self.bad_requests: list[str] = []
        self.delay: float = 0  # seconds that every answer takes
        self._rules: list[_Rule] = []
        self._net: dict[str, int] = {}
        self._applied: set[str] = set()
        self._timers: list[threading.Timer] = []

        ledger = self

        class Handler(_Handler):
            owner = ledger

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a peer that goes away in mid-request is what the tests are about

        self._server = Server(("127.0.0.1", port), Handler)
        if tls:
            # Each handshake on its connection's own thread.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="ledger", daemon=True, args=(0.05,)).start()

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._server.shutdown()
        self._server.server_close()

    # What a test asks for

    def rule(
        self, action: Action, *, operation: str | None = None, user: str | None = None, times: int | None = None
    ) -> None:
        """The next `times` requests (None: all) that match are treated with `action`. The oldest rule goes first."""

        def matches(call: Call) -> bool:
            return (operation is None or call.operation == operation) and (user is None or call.user == user)

        with self._lock:
            self._rules.append(_Rule(action, matches, times))

    def clear_rules(self) -> None:
        with self._lock:
            self._rules.clear()

    # What the audit asks

    def net(self) -> dict[str, int]:
        """What is booked on each device: 1 for a live one, 0 for one that is gone."""
        with self._lock:
            return dict(self._net)

    def calls_for(self, device: str, operation: str | None = None) -> list[Call]:
        with self._lock:
            return [
                call for call in self.calls
                if call.device == device and (operation is None or call.operation == operation)
            ]

    def book(self, device: str, change: int) -> None:
        """What an operator puts right by hand."""
        with self._lock:
            self._net[device] = self._net.get(device, 0) + change

    # How it works

    def arrived(self, call: Call) -> Action:
        with self._lock:
            self.calls.append(call)
            for rule in self._rules:
                if rule.left != 0 and rule.matches(call):
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.action
        return Action()

    def apply(self, call: Call) -> None:
        """Books the call, once per key."""
        with self._lock:
            if call.key in self._applied and self.honours_keys:
                return
            self._applied.add(call.key)
            self._net[call.device] = self._net.get(call.device, 0) + (1 if call.operation == "increment" else -1)

    def apply_later(self, call: Call, seconds: float) -> None:
        timer = threading.Timer(seconds, self.apply, (call,))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def complain(self, text: str) -> None:
        with self._lock:
            self.bad_requests.append(text)

    def token_problem(self, token: str) -> str | None:
        """Why X-Service-Token is not a service's token; None if it is one."""
        parts = token.split(".")
        if len(parts) != 3:
            return "not a JWT"
        signed = f"{parts[0]}.{parts[1]}".encode()
        expected = hmac.new(self._secret, signed, hashlib.sha256).digest()
        try:
            header, claims = (json.loads(_base64url(part)) for part in parts[:2])
            signature = _base64url(parts[2])
        except ValueError:
            return "not decodable"
        if header.get("alg") != "HS256":
            return f"alg {header.get('alg')}"
        if not hmac.compare_digest(signature, expected):
            return "wrong signature"
        audience = claims.get("aud")
        if audience != "internal-services" and audience != ["internal-services"]:
            return f"aud {audience}"
        if not claims.get("service"):
            return "no claim service"
        lifetime = claims.get("exp", 0) - claims.get("iat", 0)
        if claims.get("exp", 0) <= time.time() or not 0 < lifetime <= 3600:
            return f"iat {claims.get('iat')}, exp {claims.get('exp')}"
        return None


def compensated_key(call: Call) -> str:
    """The key of the increment that a decrement takes back."""
    return call.headers.get("x-compensates", "")


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class _Handler(BaseHTTPRequestHandler):
    owner: Ledger
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        text = self.rfile.read(length)
        if len(text) < length:
            return None  # the caller died in the midst
        path = _USAGE_PATH.fullmatch(self.path)
        if not path:
            self.owner.complain(f"POST {self.path}")
            return self._answer(404, {"message": "no such route"})
        problem = self.owner.token_problem(self.headers.get("X-Service-Token", ""))
        if problem:
            self.owner.complain(f"X-Service-Token: {problem}")
            return self._answer(401, {"message": problem})
        try:
            body = json.loads(text)
            call = Call(
                key=self.headers.get("Idempotency-Key", ""),
                user=urllib.parse.unquote(path[1]),
                device=body["deviceId"],
                operation=body["operation"],
                body=body,
                headers={name.lower(): value for name, value in self.headers.items()},
                at=time.monotonic(),
            )
        except (ValueError, KeyError) as error:
            self.owner.complain(f"body {text!r}: {error!r}")
            return self._answer(400, {"message": "bad body"})
        if not call.key or call.operation not in ("increment", "decrement"):
            self.owner.complain(f"key {call.key!r}, operation {call.operation!r}")
            return self._answer(400, {"message": "bad body"})
        action = self.owner.arrived(call)
        time.sleep(self.owner.delay + action.delay)
        if action.applies and action.apply_after:
            self.owner.apply_later(call, action.apply_after)
        elif action.applies:
            self.owner.apply(call)
        if not action.answers:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)
            return None
        return self._answer(
            action.status, action.body or {"success": True}, action.retry_after, action.page, action.location)

    def _answer(
        self, status: int, body: dict[str, Any], retry_after: str | None = None, page: str | None = None,
        location: str | None = None,
    ) -> None:
        data = page.encode() if page is not None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if page is None else "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if location is not None:
            self.send_header("Location", location)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(data)
