"""The robot's side of a policy server: asks for decisions, and never waits or believes longer than is safe."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from genvla.errors import UserError
from genvla.serving.messages import read_actions, request
from genvla.serving.wire import WireError, pack, require_serving, unpack

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

MAX_ANSWER = 2**20
"""Bytes; a chunk of 50 actions takes 2 kB."""


class PolicyFault(RuntimeError):
    """There is no usable decision this time. One line: what the policy, or the way to it, did."""


class Dropped(PolicyFault):
    """The server, or something on the way to it, ended the connection."""


class PolicyClient:
    """A policy server as seen from the robot.

    A failed decision closes the connection, so that a late answer is never taken for the next one; the next decision connects
    anew.

    Args:
        url: ws://HOST:PORT, or wss:// where a proxy adds TLS.
        token: the server's secret, None when it wants none.
        timeout: seconds for a decision, connecting included; within the arm's watchdog.
        connect_timeout: seconds for the first connection, made here.

    Raises:
        UserError: nobody answers at this address, or it wants another token.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 0.25, connect_timeout: float = 10.0) -> None:
        require_serving()
        if not url.startswith(("ws://", "wss://")):
            raise UserError(f"server: {url!r} found, ws://HOST:PORT wanted")
        self.url, self.timeout = url, timeout
        self._headers = {"Authorization": f"Api-Key {token}"} if token else {}
        self._connection: ClientConnection | None = None
        self._closing = ExitStack()
        self.metadata: dict[str, Any] = {}
        self.server_timing: dict[str, float] = {}
        self.connections = 0
        try:
            self._connect(time.monotonic() + connect_timeout)
        except (PolicyFault, WireError) as fault:
            raise UserError(f"server: {fault}") from fault

    def decide(
        self, image: UInt8[np.ndarray, "h w 3"], state: Float[np.ndarray, 7], prompt: str, noise: Float[np.ndarray, "c 7"] | None
    ) -> Float[np.ndarray, "c 7"]:
        """One chunk of actions.

        Raises:
            PolicyFault: no answer in time, the connection broke, or the answer is none.
        """
        until, data = time.monotonic() + self.timeout, pack(request(image, state, prompt, noise))
        try:
            message = self._ask_even_if_stale(data, until)
            actions = read_actions(message)
        except (PolicyFault, WireError) as fault:
            self.close()
            raise PolicyFault(str(fault)) from None
        timing = message.get("server_timing")
        self.server_timing = timing if isinstance(timing, dict) else {}
        return actions

    def close(self) -> None:
        """Ends the connection, without waiting for the other side. A later decision opens another."""
        self._connection = None
        self._closing.close()

    def _connect(self, until: float) -> None:
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect

        try:
            connection = self._closing.enter_context(
                connect(
                    self.url,
                    additional_headers=self._headers,
                    compression=None,
                    max_size=MAX_ANSWER,
                    open_timeout=max(until - time.monotonic(), 0.01),
                    close_timeout=0.0,
                    proxy=None,
                )
            )
        except InvalidStatus as refusal:
            body = (refusal.response.body or b"").decode(errors="replace").strip()[:100]
            raise PolicyFault(f"{self.url} refuses with status {refusal.response.status_code}: {body}") from None
        except (OSError, TimeoutError, WebSocketException, EOFError) as error:
            raise PolicyFault(f"{self.url} cannot be reached ({_reason(error)})") from None
        self._connection = connection
        self.connections += 1
        greeting = self._receive(connection, until)
        if not isinstance(greeting, dict):
            raise WireError(f"{self.url} greets with {type(greeting).__name__}, want the map of a policy server")
        self.metadata = greeting

    def _ask_even_if_stale(self, data: bytes, until: float) -> Any:
        """The answer; over a new connection when the old one broke, perhaps long ago while nobody was asking."""
        if self._connection is not None:
            try:
                return self._ask(self._connection, data, until)
            except Dropped:
                self.close()
        self._connect(until)
        assert self._connection is not None
        return self._ask(self._connection, data, until)

    def _ask(self, connection: ClientConnection, data: bytes, until: float) -> Any:
        from websockets.exceptions import ConnectionClosed

        try:
            connection.send(data)
        except (ConnectionClosed, OSError) as error:
            raise Dropped(f"{self.url} dropped the connection ({_reason(error)})") from None
        return self._receive(connection, until)

    def _receive(self, connection: ClientConnection, until: float) -> Any:
        from websockets.exceptions import ConnectionClosed

        try:
            message = connection.recv(timeout=max(until - time.monotonic(), 0.001))
        except TimeoutError:
            raise PolicyFault(f"{self.url} did not answer in time") from None
        except (ConnectionClosed, OSError) as error:
            raise Dropped(f"{self.url} dropped the connection ({_reason(error)})") from None
        return message if isinstance(message, str) else unpack(message)


def read_secret(path: Path | None) -> str | None:
    """The token in a file; None without a file."""
    from genvla.serving.command import read_token

    return None if path is None else read_token(path)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:120] if text else type(error).__name__
