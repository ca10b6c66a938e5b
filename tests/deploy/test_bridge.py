"""The bridge client against a server that speaks as bridge_data_robot's own does, and against ones that do not."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

zmq = pytest.importorskip("zmq")
lz4 = pytest.importorskip("lz4.frame")

from deploy.arm import GuardedArm  # noqa: E402
from deploy.control import SLEEP, START, hand_pose  # noqa: E402
from deploy.drivers import ArmFault, ReadError, bridge  # noqa: E402
from deploy.drivers.bridge import BridgeDriver, pack, unpack  # noqa: E402
from genvla.robots.kinematics import proprioception  # noqa: E402
from tests.deploy.bus import SteppedTime  # noqa: E402


class Server:
    """Answers as widowx_env_service.py does; its hand goes where it is told at once."""

    def __init__(self, answer: Callable[[dict], Any] | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.joints = SLEEP.copy()
        self.opening, self.asked, self.moves, self.frozen = 1.0, [], 0, False
        self._answer, self._closing = answer, False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join(5)
        self._socket.close(linger=0)
        self._context.term()

    def _serve(self) -> None:
        while not self._closing:
            if not self._socket.poll(20):
                continue
            request = pickle.loads(lz4.decompress(self._socket.recv()))
            self.asked.append(request)
            answer = self._answer(request) if self._answer else None
            answer = self.usual(request) if answer is None else answer
            self._socket.send(answer if isinstance(answer, bytes) else lz4.compress(pickle.dumps(answer)))

    def usual(self, request: dict) -> Any:
        if request["type"] == "hash":
            keys = {"port_number": self.port, "action_keys": bridge.ACTIONS, "observation_keys": bridge.OBSERVATIONS}
            offer = keys | {"broadcast_port": self.port + 1, "version": "0.0.1"}
            return {"success": True, "payload": json.dumps(offer, separators=(",", ":"))}
        if request["type"] == "obs":
            qpos = torch.tensor(np.append(self.joints, [0.015 + 0.022 * self.opening] * 2)[None])
            image = np.zeros((480, 640, 3), np.uint8)
            return {"image": image, "state": proprioception(qpos)[0].numpy(), "full_image": image}
        payload = request["payload"]
        if request["key"] == "move" and not self.frozen:
            from genvla.robots import kinematics

            pose = torch.from_numpy(payload["pose"])[None]
            start = torch.from_numpy(self.joints[None])
            self.joints = kinematics.inverse(start, pose[:, :3, 3], pose[:, :3, :3], 30)[0].numpy()
            self.moves += 1
        if request["key"] == "gripper":
            self.opening = float(payload["open"])
        return {"status": 1}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def client_of(server: Server, clock: SteppedTime | None = None) -> BridgeDriver:
    return BridgeDriver("127.0.0.1", server.port, clock=clock or SteppedTime())


def test_a_run_through_the_server(server: Server) -> None:
    clock = SteppedTime()
    with GuardedArm(client_of(server, clock), clock=clock, monitor=False) as arm:
        np.testing.assert_allclose(hand_pose(server.joints)[0], hand_pose(START)[0], atol=2e-3)
        before = arm.proprioception()
        for gripper in (1.0, 1.0, 0.0, 0.0, 0.0):
            arm.execute(np.array([0.0, 0.01, 0.005, 0, 0, 0, gripper]))
            clock.sleep(0.2)
        after = arm.proprioception()
        np.testing.assert_allclose((after - before)[:3], [0, 0.05, 0.025], atol=3e-3)
        assert (before[6], after[6]) == (1.0, 0.0)
        moves = [request["payload"] for request in server.asked if request.get("key") == "move"]
        assert moves[-1]["pose"].shape == (4, 4) and moves[-1]["blocking"] is False
        assert sum(request.get("key") == "gripper" for request in server.asked) == 2  # the first opening, and one closing
    np.testing.assert_allclose(hand_pose(server.joints)[0], hand_pose(SLEEP)[0], atol=0.02)


def test_a_server_whose_hand_does_not_move_is_found_out(server: Server) -> None:
    clock = SteppedTime()
    driver = client_of(server, clock)
    server.joints = START.copy()
    driver.connect()
    server.frozen = True
    with pytest.raises(ArmFault, match="accepts motions but the hand does not move"):
        for _ in range(30):
            driver.command(START + [0.3, 0, 0, 0, 0, 0], 1.0, 0.2)
            clock.sleep(0.2)
            driver.read()
    driver.close()


@pytest.mark.parametrize(
    ("kind", "answer", "line"),
    [
        ("hash", {"success": False}, "no bridge_data_robot server"),
        ("hash", {"success": True, "payload": '{"version": "9"}'}, "a server of another kind"),
        ("hash", [1, 2], "an answer of type list"),
        ("hash", b"garbage", "cannot be read"),
        ("act", {"status": 3}, "not initialised"),
        ("act", {"status": 2}, "status 2 found"),
        ("obs", {"image": 0, "state": {}}, "not initialised"),
        ("obs", {"state": [0.0] * 6}, "7 finite numbers wanted"),
        ("obs", {"state": [float("nan")] * 7}, "7 finite numbers wanted"),
        ("obs", {"state": [3.0, 0, 0, 0, 0, 0, 1]}, "mm from where an arm can be"),
    ],
)
def test_wrong_answers_are_faults_of_one_line(kind: str, answer: Any, line: str) -> None:
    server = Server(lambda request: answer if request["type"] == kind else None)
    try:
        with pytest.raises(ArmFault, match=line) as caught:
            client_of(server).connect()
        assert "\n" not in str(caught.value)
    finally:
        server.close()


def test_a_server_that_hangs_is_asked_again() -> None:
    driver = BridgeDriver("127.0.0.1", 1, clock=SteppedTime())
    with pytest.raises(ReadError, match="no answer within 0.8 s"):
        driver.connect()


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch owned",)


def test_a_pickle_with_code_does_not_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArmFault, match="is not allowed"):
        unpack(pack({"state": Evil()}))
    with pytest.raises(ArmFault, match="is not allowed"):
        unpack(lz4.compress(b"cbuiltins\neval\n(S'1'\ntR."))
    assert not list(tmp_path.iterdir())
    array = unpack(pack({"state": np.arange(7.0), "n": np.float64(3), "t": "x", "i": np.zeros((2, 2), np.uint8)}))
    assert array["state"].tolist() == list(range(7)) and array["n"] == 3.0


def test_a_bomb_is_not_unpacked() -> None:
    with pytest.raises(ArmFault, match="over 32 MiB"):
        unpack(lz4.compress(bytes(64 << 20)))
