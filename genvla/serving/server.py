"""The policy server: one policy, one websocket port, several robots.

The protocol is openpi's, so its client works: the server greets with a map of metadata, then answers each observation with
actions. GET /healthz tells whether it lives and how much it has done.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from genvla.errors import UserError
from genvla.evaluation.episodes import Act
from genvla.seeding import generator
from genvla.serving.messages import ACTIONS, read_request
from genvla.serving.wire import WireError, pack, require_serving, unpack
from genvla.types import PROPRIO_DIM, Observation

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

HEALTH = "/healthz"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one client may ask for.

    Args:
        max_bytes: of a message; 16 MiB hold a picture of 2,300 x 2,300 pixels.
        max_clients: connections at a time.
        requests_per_second: of one client; a short burst of as many is let through.
    """

    max_bytes: int = 16 * 2**20
    max_clients: int = 16
    requests_per_second: float = 50.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_clients", "requests_per_second"):
            if getattr(self, name) <= 0:
                raise UserError(f"limits.{name}: {getattr(self, name)} found, more than 0 wanted")


@dataclass
class Counts:
    """What the server has done so far."""

    clients: int = 0
    connections: int = 0
    answers: int = 0
    errors: int = 0


@dataclass
class PolicyServer:
    """Serves `act` over a websocket.

    Args:
        act: the policy, as an evaluation runs it.
        noise_shape: [c, 7] of the noise A^0 that it starts from.
        metadata: what a client is greeted with; numbers, text, lists, maps.
        token: what a client must show as `Authorization: Api-Key TOKEN` (openpi's) or `Bearer TOKEN`; none when None.
        limits: see there.
        seed: of the noise A^0 for requests that bring none; each connection has its own stream.
    """

    act: Act
    noise_shape: tuple[int, int]
    metadata: dict[str, Any]
    token: str | None = None
    limits: Limits = Limits()
    seed: int = 0
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        # One thread, because there is one policy: requests of several clients wait for each other here, and for nothing else.
        self._worker = ThreadPoolExecutor(1, "policy")

    def warm_up(self, image_size: int) -> float:
        """Decides once about an empty picture, so that compiling and first-time costs come before the first client; seconds."""
        started = time.perf_counter()
        blank = Observation(
            images=torch.zeros(1, 1, image_size, image_size, 3, dtype=torch.uint8),
            instructions=["put the cube in the bowl"],
            proprio=torch.zeros(1, PROPRIO_DIM),
        )
        self._worker.submit(self.act, blank, torch.zeros(1, *self.noise_shape)).result()
        return time.perf_counter() - started

    async def listen(self, host: str, port: int) -> Server:
        """Opens the port, 0 for any free one; returns the listening server.

        Raises:
            UserError: the address cannot be used, or lies open to others without a token.
        """
        require_serving()
        check_exposure(host, self.token)
        from websockets.asyncio.server import serve

        try:
            return await serve(
                self._converse,
                host,
                port,
                origins=[None],  # no web page: a browser on this machine must not reach a server that trusts the machine
                process_request=self._admit,
                max_size=self.limits.max_bytes,
                compression=None,
            )
        except OSError as error:
            raise UserError(f"host, port: {host}:{port} cannot be listened on ({error.strerror or error})") from error

    @contextmanager
    def running(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
        """The server in a thread of its own; yields its port."""
        loop, started, failure = asyncio.new_event_loop(), threading.Event(), []
        server: list[Server] = []

        async def start() -> None:
            try:
                server.append(await self.listen(host, port))
            except UserError as error:
                failure.append(error)
            started.set()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(start())
            if server:
                loop.run_forever()
                server[0].close()
                loop.run_until_complete(server[0].wait_closed())
            loop.close()

        thread = threading.Thread(target=run, name="policy server", daemon=True)
        thread.start()
        started.wait()
        if failure:
            thread.join()
            raise failure[0]
        try:
            yield server[0].sockets[0].getsockname()[1]
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers health checks, turns away who lacks the token or comes when the house is full."""
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, json.dumps({"status": "ok", **vars(self.counts)}) + "\n")
        if self.token is not None and not _authorised(request.headers.get_all("Authorization"), self.token):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "want the header 'Authorization: Api-Key TOKEN'\n")
        if self.counts.clients >= self.limits.max_clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self.counts.clients} clients are connected\n")
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        number = self.counts.connections
        self.counts.connections += 1
        self.counts.clients += 1
        noise = generator("cpu", self.seed, "serve", number)
        allowance = _Allowance(self.limits.requests_per_second)
        try:
            await connection.send(pack(self.metadata))
            async for message in connection:
                await connection.send(await self._answer(message, noise, allowance))
        except ConnectionClosed:
            pass  # clients come and go
        finally:
            self.counts.clients -= 1

    async def _answer(self, message: str | bytes, noise: torch.Generator, allowance: _Allowance) -> str | bytes:
        """The answer to one message: packed actions, or one line of text that says what is wrong."""
        received = time.perf_counter()
        try:
            if not allowance.take():
                raise WireError(f"too many requests, want at most {self.limits.requests_per_second:g} a second")
            if isinstance(message, str):
                raise WireError("request: found text, want a msgpack map in a binary message")
            observation, given = read_request(unpack(message), self.noise_shape)
            start = torch.randn(1, *self.noise_shape, generator=noise) if given is None else given
            answer = await asyncio.get_running_loop().run_in_executor(self._worker, self._decide, observation, start, received)
        except (WireError, UserError) as error:
            self.counts.errors += 1
            return f"error: {error}"
        except Exception:
            self.counts.errors += 1
            log.exception("a decision failed")
            return "error: the policy failed on this observation; the server's log says how"
        self.counts.answers += 1
        return answer

    def _decide(self, observation: Observation, noise: Float[Tensor, "1 c 7"], received: float) -> bytes:
        started = time.perf_counter()
        actions = self.act(observation, noise)[0].float().numpy()
        done = time.perf_counter()
        timing = {"queue_ms": 1000 * (started - received), "infer_ms": 1000 * (done - started)}
        return pack({ACTIONS: actions, "server_timing": timing})


class _Allowance:
    """A token bucket: as many requests a second, and as many at once after a pause."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = self._most = max(rate, 1.0)
        self._last = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._last) * self._rate)
        self._last = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def check_exposure(host: str, token: str | None) -> None:
    """Raises a UserError for a server that others than this machine can reach and that asks for no token."""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not token:
        raise UserError(f"host: {host} can be reached from other machines, want --token_file with it, or 127.0.0.1")


def _authorised(headers: list[str], token: str) -> bool:
    if len(headers) != 1:
        return False
    scheme, _, shown = headers[0].partition(" ")
    return scheme.lower() in ("api-key", "bearer") and hmac.compare_digest(shown.strip().encode(), token.encode())
