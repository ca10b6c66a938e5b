"""The arm behind a bridge_data_robot server (rail-berkeley/bridge_data_robot, MIT), as its own client speaks to it.

ZeroMQ request and reply; a message is lz4.frame(pickle(dict)): {"type": "hash"}, {"type": "act", "key", "payload"}, {"type":
"obs", "keys"}. What comes back is unpickled to numbers, text and numpy arrays only: a pickle from the network could run anything
else.

The server takes poses, not joint angles, and answers "success" to a pose it cannot reach: that the arm moves is checked here. It
shows neither currents nor temperatures, and keeps its own limits and its own gravity sag.
"""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from deploy.control import NEUTRAL, from_lean, hand_pose
from deploy.drivers import ArmFault, ArmState, Clock, ReadError, WallClock, finger_position
from genvla.errors import UserError
from genvla.robots import kinematics

PORT = 5556
ACTIONS = ["init", "move", "gripper", "reset", "step_action", "reboot_motor"]
OBSERVATIONS = ["image", "state", "full_image"]
SUCCESS, NOT_INITIALIZED = 1, 3
TIMEOUT = 0.8
"""Seconds the server's own client waits for an answer."""
INIT_TIMEOUT = 30.0
"""Seconds that the server's first start may take."""
MOST_BYTES = 32 * 2**20
STUCK_COMMANDS, STUCK_AWAY, STUCK_MOVED = 10, 0.03, 0.002
"""So many commands in a row with the hand this far [m] from where it was told to be, and not having moved by this much [m]."""

_SAFE = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.{module}", name) for core in ("core", "_core") for module, name in (
        ("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"),
    )),
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def unpack(message: bytes) -> dict[str, Any]:
    """A message's content: numbers, text, bytes, lists, dicts and numpy arrays. ArmFault when it is anything else."""
    lz4 = _needed("lz4.frame", "lz4")
    try:
        with lz4.LZ4FrameFile(io.BytesIO(message)) as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ArmFault(f"bridge server: an answer of over {MOST_BYTES >> 20} MiB")
        content = _Unpickler(io.BytesIO(raw)).load()
    except ArmFault:
        raise
    except Exception as error:  # whatever a broken or hostile message makes the decoders raise
        raise ArmFault(f"bridge server: an answer that cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ArmFault(f"bridge server: an answer of type {type(content).__name__}, a dict wanted")
    return content


def pack(content: dict[str, Any]) -> bytes:
    """The message for a content."""
    return _needed("lz4.frame", "lz4").compress(pickle.dumps(content, protocol=4))


class BridgeDriver:
    """Client of the server on `host`; `init` starts its robot first, if it has not been. clock: seconds."""

    def __init__(self, host: str = "localhost", port: int = PORT, init: bool = True, clock: Clock | None = None) -> None:
        self._address, self._port, self._init = f"tcp://{host}:{port}", port, init
        self._clock = clock or WallClock()
        self._socket: Any = None
        self._context: Any = None

    def connect(self) -> None:
        zmq = _needed("zmq", "pyzmq")
        self._context = zmq.Context()
        self._renew_socket()
        try:
            self._check_server()
            if self._init:
                payload = {"env_params": ENV_PARAMS, "image_size": 256}
                self._expect(self._ask({"type": "act", "key": "init", "payload": payload}, INIT_TIMEOUT), "init")
            self._joints = NEUTRAL.copy()
            self._goal: Float[np.ndarray, " 3"] | None = None
            self._stuck_at: Float[np.ndarray, " 3"] | None = None
            self._stuck, self._opening = 0, -1.0
            self._previous: tuple[float, Float[np.ndarray, " 6"]] | None = None
            self.read()
        except BaseException:
            self.close()
            raise

    def read(self) -> ArmState:
        """Joint angles by inverse kinematics of the pose that the server reports, velocities from one reading to the next."""
        state = self._ask({"type": "obs", "keys": set(OBSERVATIONS)}).get("state")
        if isinstance(state, dict) and not state:
            raise ArmFault(f"{self._address}: the server's robot is not initialised")
        values = np.asarray(state, float) if isinstance(state, list | np.ndarray) else np.zeros(0)
        if values.shape != (7,) or not np.isfinite(values).all():
            raise ReadError(f"{self._address}: state: shape {values.shape} found, 7 finite numbers wanted")
        now = self._clock.now()
        position = torch.from_numpy(values[None, :3])
        rotation = torch.from_numpy(from_lean(values[3:6]))[None]
        joints = kinematics.inverse(torch.from_numpy(self._joints[None]), position, rotation, iterations=20)[0].numpy()
        miss = np.linalg.norm(hand_pose(joints)[0] - values[:3])
        if miss > 0.02:
            raise ArmFault(f"{self._address}: the hand is reported {miss * 1000:.0f} mm from where an arm can be")
        speeds = np.zeros(6)
        if self._previous is not None and now > self._previous[0]:
            speeds = (joints - self._previous[1]) / (now - self._previous[0])
        self._joints, self._previous = joints, (now, joints)
        self._watch_for_silence(values[:3])
        finger = finger_position(float(np.clip(values[6], 0.0, 1.0)))
        return ArmState(now, joints, speeds, np.array([finger, finger]))

    def command(self, joint_targets: Float[np.ndarray, " 6"], gripper: float, duration: float) -> None:
        position, rotation = hand_pose(joint_targets)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, position
        self._goal = position
        self._act("move", {"pose": pose, "duration": float(duration), "blocking": False})
        opening = float(gripper > 0.5)
        if opening != self._opening:
            self._act("gripper", {"open": opening})
            self._opening = opening

    def hold(self) -> None:
        self.command(self._joints, max(self._opening, 0.0), 0.2)
        self._goal = None

    def park(self) -> None:
        """The server keeps the motors on; the arm stays in the sleep pose."""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._context.term()
        self._socket = None

    # ---- the wire

    def _check_server(self) -> None:
        answer = self._ask({"type": "hash"})
        keys = {"port_number": self._port, "action_keys": ACTIONS, "observation_keys": OBSERVATIONS}
        wanted = keys | {"broadcast_port": self._port + 1, "version": "0.0.1"}
        try:
            found = json.loads(answer["payload"])
        except (KeyError, TypeError, ValueError):
            raise ArmFault(f"{self._address}: no bridge_data_robot server: it does not say what it offers") from None
        if found != wanted:
            raise ArmFault(f"{self._address}: a server of another kind: {json.dumps(found)[:120]} found")

    def _act(self, key: str, payload: dict[str, Any]) -> None:
        self._expect(self._ask({"type": "act", "key": key, "payload": payload}), key)

    def _expect(self, answer: dict[str, Any], key: str) -> None:
        status = answer.get("status")
        if status == NOT_INITIALIZED:
            raise ArmFault(f"{self._address}: {key}: the server's robot is not initialised")
        if status != SUCCESS:
            raise ArmFault(f"{self._address}: {key}: status {status!r} found, {SUCCESS} (success) wanted")

    def _ask(self, request: dict[str, Any], timeout: float = TIMEOUT) -> dict[str, Any]:
        if self._socket is None:
            raise ArmFault(f"{self._address}: not connected")
        self._socket.send(pack(request))
        if not self._socket.poll(timeout * 1000):
            self._renew_socket()
            raise ReadError(f"{self._address}: no answer within {timeout:g} s")
        return unpack(self._socket.recv())

    def _renew_socket(self) -> None:
        """A request without an answer leaves its socket unusable."""
        import zmq

        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = self._context.socket(zmq.REQ)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self._socket.connect(self._address)

    def _watch_for_silence(self, position: Float[np.ndarray, " 3"]) -> None:
        """The server answers success to a pose it cannot reach, and does nothing."""
        away = self._goal is not None and np.linalg.norm(position - self._goal) > STUCK_AWAY
        if not away or self._stuck_at is None or np.linalg.norm(position - self._stuck_at) > STUCK_MOVED:
            self._stuck, self._stuck_at = 0, position
            return
        self._stuck += 1
        if self._stuck >= STUCK_COMMANDS:
            raise ArmFault(f"{self._address}: the server accepts motions but the hand does not move")


ENV_PARAMS = {
    "fix_zangle": 0.1,
    "move_duration": 0.2,
    "adaptive_wait": True,
    "move_to_rand_start_freq": 1,
    "override_workspace_boundaries": [[0.1, -0.15, -0.01, -1.57, 0], [0.45, 0.25, 0.25, 1.57, 0]],
    "action_clipping": "xyz",
    "catch_environment_except": False,
    "start_state": [0.3, 0.0, 0.15, 0, 0, 0, 1],
    "skip_move_to_neutral": False,
    "return_full_image": False,
    "camera_topics": [{"name": "/blue/image_raw"}],
}
"""What `init` sends: the parameters of Octo's Bridge evaluation."""


def _needed(module: str, distribution: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"{distribution}: not found, want it installed: pip install 'genvla[robot]'") from None
