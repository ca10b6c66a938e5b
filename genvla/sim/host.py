"""Many environments in one process: the slots of a vector environment, whichever process they live in."""

from __future__ import annotations

import gc
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import sapien
import torch

from genvla.errors import UserError
from genvla.robots import kinematics
from genvla.robots.control import TargetPoseControl
from genvla.robots.rotations import matrix_to_euler
from genvla.seeding import derive_seed
from genvla.sim.config import SimConfig
from genvla.sim.expert import Demonstration, Moment, ScriptedExpert
from genvla.sim.scene_batch import SubScene
from genvla.sim.scene_env import SceneEnv
from genvla.sim.simpler import SimplerEnv, is_simpler, require_assets
from genvla.sim.success import Touches
from genvla.types import ACTION_DIM, CHUNK_SIZE, PRIVILEGED_NAMES, PROPRIO_DIM, EpisodeRecord, EpisodeSpec
from scenegen.loader import SceneSet, load_scene_set

HOLD = np.zeros(ACTION_DIM, dtype=np.float32)
"""An action that moves nothing and opens nothing further; for slots that idle."""

IDLE_PER_SLOT = 2
RESIDENT = 128
"""Environments kept for scenes that no slot runs now: so many per slot, or so many in all where that is more. Evaluations in
between training, and slots that rotate over more scenes than there are slots, then rebuild nothing."""

FORGET_EVERY = 32
"""Closed environments after which SAPIEN is made to forget the meshes it has read: it keeps 2.3 MB for each scene otherwise."""


def observation_arrays(num: int, image_size: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes and types of what a host reports of `num` slots, apart from text."""
    image = ((num, 1, image_size, image_size, 3), np.dtype(np.uint8))
    proprio = ((num, PROPRIO_DIM), np.dtype(np.float32))
    privileged = ((num, len(PRIVILEGED_NAMES)), np.dtype(np.float32))
    flag = ((num,), np.dtype(np.bool_))
    return {
        "images": image,
        "proprio": proprio,
        "privileged": privileged,
        "final_images": image,
        "final_proprio": proprio,
        "final_privileged": privileged,
        "terminated": flag,
        "truncated": flag,
        "actions": ((num, CHUNK_SIZE, ACTION_DIM), np.dtype(np.float32)),
    }


def require_renderer() -> None:
    """Raises a UserError that says what to do where nothing renders."""
    try:
        sapien.render.RenderSystem()
    except RuntimeError as error:
        raise UserError(
            f"Vulkan: {error}; a device that renders is wanted: `genvla doctor --fix` installs the software one"
        ) from None


def _render_backend(device: str) -> str:
    """ManiSkill's name of a device to render on. UserError when there is none of that name."""
    try:
        sapien.Device(device)
    except RuntimeError as error:
        raise UserError(f"render_device: {device!r} found ({error}), auto, cpu, cuda or cuda:N wanted") from None
    return device


Simulated = SceneEnv | SimplerEnv | SubScene
"""What a slot's episode runs in."""


@dataclass
class Slot:
    """One environment's running episode; `env` is None while the slot idles."""

    env: Simulated | None = None
    spec: EpisodeSpec | None = None
    chunks: int = 0
    steps: int = 0
    first_success: int | None = None
    grasped: bool = False
    touches: Touches = field(default_factory=lambda: Touches(False, True, False))

    def record(self) -> EpisodeRecord:
        assert self.env is not None and self.spec is not None
        return EpisodeRecord(
            scene_id=self.spec.scene_id,
            seed=self.spec.seed,
            success_once=self.first_success is not None,
            success_at_end=self.touches.success,
            grasped_once=self.grasped,
            steps=self.steps if self.first_success is None else self.first_success,
            chunks=self.chunks,
            instruction=self.env.instruction,
        )


class Host:
    """Runs the episodes of its slots and writes what they observe into the arrays given.

    arrays: as `observation_arrays` describes them, one row a slot; the host reads `actions` and writes the rest. render_device:
    "auto" (a GPU where torch sees one), "cpu", "cuda", or "cuda:1" and so on; all hosts of a process render on one.
    """

    def __init__(self, scenes: Path, sim: SimConfig, arrays: dict[str, np.ndarray], render_device: str = "auto") -> None:
        require_renderer()
        self._rendering = {} if render_device == "auto" else {"render_backend": _render_backend(render_device)}
        if is_simpler(scenes):
            require_assets()
        self._scene_set: SceneSet | None = None if is_simpler(scenes) else load_scene_set(scenes)
        self._sim = sim
        self._arrays = arrays
        self._slots = [Slot() for _ in range(len(arrays["actions"]))]
        self._control = TargetPoseControl(len(self._slots), torch.device("cpu"))
        self._idle_envs: list[SceneEnv | SimplerEnv] = []
        self._closed = 0
        self._watched: set[int] = set()
        self._frames: dict[int, list[np.ndarray]] = {}
        self._recording = False
        self._moments: dict[int, list[Moment]] = {}
        self._terminate = True
        self.timings: dict[str, float] = defaultdict(float)
        gc.collect()
        gc.freeze()  # ManiSkill collects garbage for each environment it makes, and would look at every imported module each time

    # ---- episodes

    def reset(self, specs: Sequence[EpisodeSpec | None], terminate_on_success: bool) -> list[str]:
        """Starts these episodes, one a slot; returns the instructions."""
        self._terminate = terminate_on_success
        with torch.inference_mode():
            self._begin_all(dict(enumerate(specs)))
            self._observe(range(len(self._slots)), "")
        return [slot.env.instruction if slot.env else "" for slot in self._slots]

    def step(self, following: Sequence[EpisodeSpec | None]) -> tuple[list[tuple[int, EpisodeRecord]], dict[int, str]]:
        """Runs the chunks in `arrays["actions"]`; a slot whose episode ends goes on with its following one. Returns the finished
        episodes by slot, and the instructions of slots that began a new one."""
        with torch.inference_mode():
            return self._step(following)

    def _step(self, following: Sequence[EpisodeSpec | None]) -> tuple[list[tuple[int, EpisodeRecord]], dict[int, str]]:
        active = [index for index, slot in enumerate(self._slots) if slot.env is not None]
        self._frames = {index: [] for index in self._watched if index in active}
        self._moments = {index: [] for index in active if self._recording}
        actions = self._arrays["actions"].copy()
        for k in range(CHUNK_SIZE):
            self._remember()
            self._advance(active, actions[:, k])
        arrays = self._arrays
        arrays["terminated"][:] = arrays["truncated"][:] = False
        for index in active:
            slot = self._slots[index]
            slot.chunks += 1
            arrays["terminated"][index] = self._terminate and slot.first_success is not None
            arrays["truncated"][index] = not arrays["terminated"][index] and slot.chunks >= self._sim.max_chunks
        self._observe(np.flatnonzero(arrays["truncated"]).tolist(), "final_")
        over = np.flatnonzero(arrays["terminated"] | arrays["truncated"]).tolist()
        finished = [(index, self._slots[index].record()) for index in over]
        self._begin_all({index: following[index] for index in over})
        began = {index: slot.env.instruction if slot.env else "" for index, slot in enumerate(self._slots) if index in over}
        self._observe([index for index in active if self._slots[index].env is not None], "")
        return finished, began

    def _begin_all(self, specs: Mapping[int, EpisodeSpec | None]) -> None:
        """Begins these episodes, by slot; None leaves a slot idle."""
        for index, spec in specs.items():
            self._begin(index, spec)

    def _begin(self, index: int, spec: EpisodeSpec | None) -> None:
        self._put_away(self._slots[index])
        self._slots[index] = Slot()
        if spec is None:
            return
        started = time.perf_counter()
        env = self._take_env(index, spec.scene_id)
        env.begin(spec.seed)
        self._slots[index] = Slot(env, spec)
        self._control.reset(torch.tensor([index]), torch.from_numpy(env.qpos()[None, :6]))
        self.timings["reset"] += time.perf_counter() - started

    def _put_away(self, slot: Slot) -> None:
        """Keeps the environment of a slot whose episode is over, for another one."""
        if isinstance(slot.env, SceneEnv | SimplerEnv):
            self._idle_envs.append(slot.env)

    def _take_env(self, index: int, scene_id: str) -> Simulated:
        """For a slot: an idle environment of this scene, or a new one; building takes fifty times as long as beginning one.

        The longest idle ones go when there are more than are kept.
        """
        for place in reversed(range(len(self._idle_envs))):
            if self._idle_envs[place].layout.id == scene_id:
                return self._idle_envs.pop(place)
        while len(self._idle_envs) > max(IDLE_PER_SLOT * len(self._slots), RESIDENT):
            self._idle_envs.pop(0).close()
            self._closed += 1
            if self._closed % FORGET_EVERY == 0:
                sapien.render.clear_cache()
                sapien.physx.clear_cache()
        if self._scene_set is None:
            return SimplerEnv(scene_id, self._sim, **self._rendering)
        return SceneEnv(scene=self._scene_set.load(scene_id), sim=self._sim, obs_mode="none", **self._rendering)

    def _advance(self, active: Sequence[int], actions: np.ndarray) -> None:
        """One control step of every active slot; actions [slots, 7]."""
        started = time.perf_counter()
        idle = [index for index in range(len(self._slots)) if index not in set(active)]
        actions[idle] = HOLD
        targets = self._control.joint_targets(torch.from_numpy(actions)).numpy()
        solved = time.perf_counter()
        self.timings["kinematics"] += solved - started
        self._simulate(active, targets)
        for index in active:
            slot = self._slots[index]
            assert slot.env is not None
            slot.steps += 1
            slot.touches = slot.env.touches()
            slot.grasped |= slot.touches.robot and not slot.touches.table
            if slot.touches.success and slot.first_success is None:
                slot.first_success = slot.steps
        self.timings["physics"] += time.perf_counter() - solved
        for index, frames in self._frames.items():
            frames.append(self._slots[index].env.view())  # type: ignore[union-attr]

    def _simulate(self, active: Sequence[int], targets: np.ndarray) -> None:
        """One control step towards these joint targets [slots, 8]."""
        for index in active:
            env = self._slots[index].env
            assert isinstance(env, SceneEnv | SimplerEnv)
            env.drive(targets[index])
            env.advance()

    def take_timings(self) -> dict[str, float]:
        """Seconds of work by phase since last asked."""
        timings = dict(self.timings)
        self.timings.clear()
        return timings

    def close(self) -> None:
        """Frees the environments."""
        for env in [slot.env for slot in self._slots if slot.env] + self._idle_envs:
            env.close()
        self._slots, self._idle_envs = [], []

    # ---- observations

    def _observe(self, indices: Sequence[int], prefix: str) -> None:
        """Writes the observation of these slots to the arrays whose name begins with prefix."""
        indices = [index for index in indices if self._slots[index].env is not None]
        if not indices:
            return
        started = time.perf_counter()
        images = self._arrays[f"{prefix}images"]
        for index in indices:
            images[index, 0] = self._slots[index].env.look()  # type: ignore[union-attr]
        self.timings["render"] += time.perf_counter() - started
        proprio, privileged = self._state(indices)
        self._arrays[f"{prefix}proprio"][indices] = proprio
        self._arrays[f"{prefix}privileged"][indices] = privileged

    def _state(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Proprioception [k, 7] and simulator state [k, p] of these slots."""
        qpos = torch.from_numpy(np.stack([self._slots[index].env.qpos() for index in indices]))  # type: ignore[union-attr]
        proprio = kinematics.proprioception(qpos).numpy()
        rows = np.zeros((len(indices), len(PRIVILEGED_NAMES)), dtype=np.float32)
        for row, index, hand in zip(rows, indices, proprio, strict=True):
            slot = self._slots[index]
            assert slot.env is not None
            grasp, yaw, goal = slot.env.target_state()
            seen = slot.env.in_picture(np.stack((grasp, goal))).flatten()
            turn = [0.0, 0.0] if np.isnan(yaw) else [np.sin(2 * yaw), np.cos(2 * yaw)]
            touches = [slot.touches.robot, slot.touches.table, slot.touches.destination]
            left = 1.0 - slot.chunks / self._sim.max_chunks
            row[:] = [*grasp, *turn, *goal, *seen, *(grasp - hand[:3]), *(goal - grasp), hand[6], *touches, left]
        np.clip(rows, -1.0, 1.0, out=rows)  # an object that fell off the table would be metres away, and a critic's loss with it
        return proprio, rows

    def _remember(self) -> None:
        """Keeps what the slots that are recorded observe now."""
        indices = list(self._moments)
        if indices:
            proprio, privileged = self._state(indices)
            for index, *state in zip(indices, proprio, privileged, strict=True):
                self._moments[index].append((self._slots[index].env.look()[None], *state))  # type: ignore[union-attr]

    # ---- videos, recordings and demonstrations

    def watch(self, slots: Sequence[int]) -> None:
        """From now on every control step of these slots is photographed for people."""
        self._watched = set(slots)

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        """The photographs of the last step, by slot; those of a slot end with its episode's last control step."""
        return self._frames

    def record(self, on: bool) -> None:
        """From now on what is observed before every control step is kept, not only before every chunk; or no longer."""
        self._recording = on

    def take_moments(self) -> dict[int, list[Moment]]:
        """What was observed before each control step of the last step, by slot that was active."""
        return self._moments

    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float) -> Iterator[tuple[int, Demonstration]]:
        """The expert's episodes, in the order they finish, with their place in specs.

        noise: standard deviation of what is added to the executed actions, as a share of the largest step; each episode draws its
        share from [0, noise].
        """
        waiting = list(enumerate(specs))[::-1]
        running: dict[int, _Recording] = {}
        with torch.inference_mode():
            while waiting or running:
                free = [index for index in range(len(self._slots)) if index not in running]
                starting = {index: waiting.pop() for index in free[: len(waiting)]}
                self._begin_all({index: spec for index, (_, spec) in starting.items()})
                for index, (place, _) in starting.items():
                    running[index] = _Recording(place, self._slots[index], noise)
                yield from self._demonstrate_step(running)

    def _demonstrate_step(self, running: dict[int, _Recording]) -> Iterator[tuple[int, Demonstration]]:
        indices = sorted(running)
        proprio, privileged = self._state(indices)
        actions = np.zeros((len(self._slots), ACTION_DIM), dtype=np.float32)
        position, rotation = self._control.position.numpy(), self._control.rotation
        yaw = matrix_to_euler(rotation @ torch.tensor(kinematics.TOP_DOWN, dtype=rotation.dtype).T)[:, 2].numpy()
        for row, index in enumerate(indices):
            image = self._slots[index].env.look()  # type: ignore[union-attr]
            actions[index] = running[index].act(image, proprio[row], privileged[row], position[index], float(yaw[index]))
        self._advance(indices, actions)
        for index in indices:
            if self._slots[index].steps >= self._sim.max_steps or running[index].finished:
                yield running[index].place, running[index].demonstration()
                self._begin(index, None)
                del running[index]


class _Recording:
    """One demonstration in the making."""

    AFTERWARDS = 2
    """Control steps recorded after success, so that retreating is learnt too."""

    def __init__(self, place: int, slot: Slot, noise: float) -> None:
        assert slot.env is not None and slot.spec is not None
        self.place = place
        self._slot = slot
        self._expert = ScriptedExpert(slot.env.grasp_height)
        self._rng = np.random.default_rng(derive_seed("demonstration", slot.spec.seed))
        self._noise = noise * self._rng.uniform() * np.array([0.05, 0.05, 0.05, 0.1, 0.1, 0.35, 0.0])
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    @property
    def finished(self) -> bool:
        first = self._slot.first_success
        return first is not None and self._slot.steps >= first + self.AFTERWARDS

    def act(
        self, image: np.ndarray, proprio: np.ndarray, privileged: np.ndarray, commanded: np.ndarray, commanded_yaw: float
    ) -> np.ndarray:
        """Records what is seen and what the expert means to do; returns what is executed."""
        assert self._slot.env is not None
        grasp, yaw, goal = self._slot.env.target_state()
        meant = self._expert.action(commanded, commanded_yaw, proprio[:3], float(proprio[5]), grasp, yaw, goal)
        self._rows.append((image[None], proprio, privileged, meant))
        return meant + self._noise * self._rng.standard_normal(ACTION_DIM)

    def demonstration(self) -> Demonstration:
        images, proprio, privileged, actions = (np.stack(column) for column in zip(*self._rows, strict=True))
        chunks = math.ceil(self._slot.steps / CHUNK_SIZE)  # the expert decides at every step
        return Demonstration(replace(self._slot.record(), chunks=chunks), images, proprio, privileged, actions)
