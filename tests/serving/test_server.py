"""The server against openpi's client, our own, and clients that mean no good."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch

from deploy.client import PolicyClient, PolicyFault
from genvla.errors import UserError
from genvla.evaluation.evaluate import policy_act
from genvla.policy.flow_policy import FlowPolicy
from genvla.serving.messages import request
from genvla.serving.server import Limits, PolicyServer
from genvla.serving.wire import pack, unpack
from genvla.types import Observation

pytest.importorskip("websockets")
pytest.importorskip("msgpack")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

TOKEN = "correct-horse-battery"
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
STATE = np.array([0.3, 0.0, 0.1, 0.0, 0.1, 0.2, 1.0], dtype=np.float32)
NOISE = np.random.default_rng(1).standard_normal((4, 7)).astype(np.float32)
PROMPT = "put the cube in the bowl"


@pytest.fixture(scope="module")
def policy() -> FlowPolicy:
    torch.manual_seed(0)
    return FlowPolicy().eval()


@pytest.fixture
def server(policy: FlowPolicy) -> PolicyServer:
    limits = Limits(max_bytes=200_000, max_clients=3, requests_per_second=1e6)
    return PolicyServer(policy_act(policy), (4, 7), {"policy": "test", "noise_shape": [4, 7]}, limits=limits)


@pytest.fixture
def port(server: PolicyServer) -> Iterator[int]:
    with server.running() as port:
        yield port
        assert healthy(port)  # whatever a test did to it


def healthy(port: int) -> bool:
    with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
        return answer.status == 200 and json.load(answer)["status"] == "ok"


def expected(policy: FlowPolicy) -> np.ndarray:
    observation = Observation(torch.from_numpy(IMAGE)[None, None], [PROMPT], torch.from_numpy(STATE)[None])
    return policy_act(policy)(observation, torch.from_numpy(NOISE)[None])[0].numpy()


def test_openpi_client_infers_and_reconnects(policy: FlowPolicy, port: int) -> None:
    module = pytest.importorskip("openpi_client.websocket_client_policy")
    for _ in range(2):
        client = module.WebsocketClientPolicy("127.0.0.1", port)
        assert client.get_server_metadata() == {"policy": "test", "noise_shape": [4, 7]}
        answer = client.infer(request(IMAGE, STATE, PROMPT, NOISE))
        np.testing.assert_array_equal(answer["actions"], expected(policy))
        assert answer["server_timing"]["infer_ms"] > 0
        with pytest.raises(RuntimeError, match="observation/state"):
            client.infer({"observation/image": IMAGE, "prompt": PROMPT})
        assert client.infer(request(IMAGE, STATE, PROMPT))["actions"].shape == (4, 7)
        client._ws.close()


def test_our_client_gets_the_policy_s_very_numbers(policy: FlowPolicy, port: int) -> None:
    client = PolicyClient(f"ws://127.0.0.1:{port}", timeout=30.0)
    np.testing.assert_array_equal(client.decide(IMAGE, STATE, PROMPT, NOISE), expected(policy))
    assert client.metadata["policy"] == "test" and set(client.server_timing) == {"queue_ms", "infer_ms"}
    client.close()
    np.testing.assert_array_equal(client.decide(IMAGE, STATE, PROMPT, NOISE), expected(policy))
    assert client.connections == 2
    client.close()


def test_several_clients_are_answered_each_with_its_own(policy: FlowPolicy, port: int) -> None:
    noises = np.random.default_rng(2).standard_normal((3, 10, 4, 7)).astype(np.float32)
    act = policy_act(policy)
    observation = Observation(torch.from_numpy(IMAGE)[None, None], [PROMPT], torch.from_numpy(STATE)[None])

    def ask(mine: np.ndarray) -> list[np.ndarray]:
        client = PolicyClient(f"ws://127.0.0.1:{port}", timeout=10.0)
        answers = [client.decide(IMAGE, STATE, PROMPT, noise) for noise in mine]
        client.close()
        return answers

    with ThreadPoolExecutor(3) as pool:
        for mine, answers in zip(noises, pool.map(ask, noises), strict=True):
            for noise, answer in zip(mine, answers, strict=True):
                np.testing.assert_array_equal(answer, act(observation, torch.from_numpy(noise)[None])[0].numpy())


def test_requests_without_noise_draw_their_own_and_repeatably(policy: FlowPolicy) -> None:
    def chunks(seed: int) -> np.ndarray:
        server = PolicyServer(policy_act(policy), (4, 7), {}, seed=seed)
        with server.running() as port:
            client = PolicyClient(f"ws://127.0.0.1:{port}", timeout=30.0)
            answers = np.stack([client.decide(IMAGE, STATE, PROMPT, None) for _ in range(2)])
            client.close()
        return answers

    first = chunks(0)
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, chunks(0))
    assert not np.array_equal(first, chunks(1))


def test_ten_thousand_random_messages(server: PolicyServer, port: int) -> None:
    rng = np.random.default_rng(0)
    good = pack(request(IMAGE[:4, :4], STATE, PROMPT))
    with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
        connection.recv()
        for number in range(10_000):
            if number % 2:
                message = rng.bytes(int(rng.integers(0, 200)))
            else:  # almost a request: such get further in
                damaged = bytearray(good)
                damaged[int(rng.integers(len(damaged) // 2))] = int(rng.integers(256))
                damaged[0] = 0x80 | int(rng.integers(3))
                message = bytes(damaged)
            connection.send(message)
            answer = connection.recv(timeout=30)
            assert isinstance(answer, str) and answer.startswith("error: ") and "\n" not in answer, answer
        connection.send(good)
        assert unpack(connection.recv(timeout=30))["actions"].shape == (4, 7)
    assert server.counts.errors == 10_000


def test_random_bytes_on_the_bare_socket(port: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as bare, suppress(OSError):
            bare.sendall(rng.bytes(500))
    with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:  # bytes that are no websocket frames
        connection.recv()
        with suppress(OSError):
            connection.socket.sendall(rng.bytes(500))


def test_text_frames_and_oversized_messages(port: int) -> None:
    with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
        connection.recv()
        connection.send("hello")
        assert "found text" in connection.recv(timeout=30)
        connection.send(bytes(300_000))
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=30)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009  # message too big (RFC 6455, 7.4.1)


def test_full_house_turns_away(port: int) -> None:
    clients = [PolicyClient(f"ws://127.0.0.1:{port}") for _ in range(3)]
    with pytest.raises(UserError, match="503: 3 clients"):
        PolicyClient(f"ws://127.0.0.1:{port}")
    for client in clients:
        client.close()


def test_too_many_requests_are_refused_and_later_ones_are_not(policy: FlowPolicy) -> None:
    server = PolicyServer(policy_act(policy), (4, 7), {}, limits=Limits(requests_per_second=5.0))
    with server.running() as port, connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
        connection.recv()
        answers = []
        for _ in range(20):
            connection.send(b"")
            answers.append(connection.recv(timeout=30))
        assert 5 <= sum("no msgpack" in answer for answer in answers) <= 8
        assert "too many requests, want at most 5 a second" in answers[-1]
        time.sleep(0.3)
        connection.send(b"")
        assert "no msgpack" in connection.recv(timeout=30)


@pytest.mark.parametrize("shown", [None, "wrong", TOKEN + "x", ""])
def test_wrong_token(policy: FlowPolicy, shown: str | None) -> None:
    server = PolicyServer(policy_act(policy), (4, 7), {}, TOKEN)
    with server.running() as port:
        headers = {} if shown is None else {"Authorization": f"Api-Key {shown}"}
        with pytest.raises(InvalidStatus) as refusal, connect(f"ws://127.0.0.1:{port}", additional_headers=headers):
            pass
        assert refusal.value.response.status_code == 401
        with pytest.raises(UserError, match="401"):
            PolicyClient(f"ws://127.0.0.1:{port}", shown)
        for right in (f"Api-Key {TOKEN}", f"Bearer {TOKEN}"):
            with connect(f"ws://127.0.0.1:{port}", additional_headers={"Authorization": right}) as connection:
                connection.recv(timeout=30)
        assert healthy(port)


def test_a_web_page_is_turned_away(port: int) -> None:
    with pytest.raises(InvalidStatus, match="403"), connect(f"ws://127.0.0.1:{port}", origin="http://page.example"):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "robot.example"])
def test_open_to_others_only_with_a_token(policy: FlowPolicy, host: str) -> None:
    with pytest.raises(UserError, match="--token_file"), PolicyServer(policy_act(policy), (4, 7), {}).running(host):
        pass


def test_a_port_in_use_is_a_user_error(policy: FlowPolicy, port: int) -> None:
    with pytest.raises(UserError, match=str(port)), PolicyServer(policy_act(policy), (4, 7), {}).running(port=port):
        pass


def test_a_policy_that_fails_is_an_error_of_that_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    def act(observation: Observation, noise: torch.Tensor) -> torch.Tensor:
        if observation.instructions == ["fail"]:
            raise RuntimeError("secret path")
        return noise

    with PolicyServer(act, (4, 7), {}).running() as port:
        client = PolicyClient(f"ws://127.0.0.1:{port}", timeout=30.0)
        with pytest.raises(PolicyFault, match="the policy failed") as fault:
            client.decide(IMAGE, STATE, "fail", NOISE)
        assert "secret" not in str(fault.value) and "secret path" in caplog.text
        np.testing.assert_array_equal(client.decide(IMAGE, STATE, PROMPT, NOISE), NOISE)
        client.close()


class TestFaults:
    """What our client makes of a server that went wrong: one line, in time, and a fresh start."""

    @pytest.fixture
    def peer(self) -> Iterator[Peer]:
        with Peer() as peer:
            yield peer

    @pytest.mark.parametrize(
        ("behaviour", "words"),
        [
            ("hang", "did not answer in time"),
            ("drop", "dropped the connection"),
            ("text", "the server says: error"),
            (b"\xc1garbage", "no msgpack"),
            (pack({"actions": np.full((4, 7), np.nan)}), "not finite"),
            (pack({"actions": np.zeros((4, 3))}), "want numbers"),
            (pack({"timing": 1}), "NoneType"),
            (bytes(2_000_000), "dropped the connection"),
        ],
        ids=["hang", "drop", "text", "garbage", "nan", "shape", "none", "huge"],
    )
    def test_one_line_in_time_then_a_fresh_start(self, peer: Peer, behaviour: Any, words: str) -> None:
        client = PolicyClient(f"ws://127.0.0.1:{peer.port}", timeout=0.3 if behaviour == "hang" else 20.0)
        peer.behaviour = behaviour
        started = time.monotonic()
        with pytest.raises(PolicyFault, match=words) as fault:
            client.decide(IMAGE, STATE, PROMPT, NOISE)
        assert time.monotonic() - started < 10.0
        assert "\n" not in str(fault.value)
        peer.behaviour, client.timeout = "echo", 20.0
        np.testing.assert_array_equal(client.decide(IMAGE, STATE, PROMPT, NOISE), NOISE)
        client.close()

    def test_nobody_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        with pytest.raises(UserError, match="cannot be reached"):
            PolicyClient(f"ws://127.0.0.1:{port}", connect_timeout=1.0)
        with pytest.raises(UserError, match="ws://HOST:PORT"):
            PolicyClient("127.0.0.1:1")

    def test_server_dies_and_comes_back(self, policy: FlowPolicy) -> None:
        with PolicyServer(policy_act(policy), (4, 7), {}).running() as port:
            client = PolicyClient(f"ws://127.0.0.1:{port}", timeout=20.0)
            client.decide(IMAGE, STATE, PROMPT, NOISE)
        for _ in range(2):
            with pytest.raises(PolicyFault):
                client.decide(IMAGE, STATE, PROMPT, NOISE)
        for _ in range(2):  # the second time it was gone and back while nobody asked: that costs no decision
            with PolicyServer(policy_act(policy), (4, 7), {}).running(port=port):
                np.testing.assert_array_equal(client.decide(IMAGE, STATE, PROMPT, NOISE), expected(policy))
        with PolicyServer(policy_act(policy), (4, 7), {}).running(port=port):
            np.testing.assert_array_equal(client.decide(IMAGE, STATE, PROMPT, NOISE), expected(policy))
            client.close()


class Peer:
    """A websocket server that misbehaves as told."""

    def __init__(self) -> None:
        from websockets.sync.server import serve

        self.behaviour: Any = "echo"
        self._server = serve(self._converse, "127.0.0.1", 0, compression=None)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def _converse(self, connection: Any) -> None:
        connection.send(pack({"policy": "peer"}))
        for message in connection:
            if self.behaviour == "echo":
                connection.send(pack({"actions": unpack(message)["noise"]}))
            elif self.behaviour == "drop":
                connection.socket.shutdown(socket.SHUT_RDWR)
            elif self.behaviour == "text":
                connection.send("error: tired")
            elif self.behaviour != "hang":
                connection.send(self.behaviour)
