"""`genvla export-dataset`: episodes of the scripted expert, or of a policy, for others to train on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genvla.errors import UserError
from genvla.learning.lerobot.layout import Images
from genvla.sim.config import SimConfig, load_sim

if TYPE_CHECKING:
    from rich.console import Console

    from genvla.evaluation.recording import Keep
    from genvla.learning.lerobot.writer import DatasetWriter
    from genvla.policy.flow_policy import FlowPolicy
    from genvla.sim import VectorEnv
    from genvla.sim.expert import Demonstration
    from genvla.types import EpisodeSpec

SHOWN = 4
"""Episodes of which preview.png shows pictures."""


def export_dataset(
    scenes: Path,
    output: Path,
    checkpoint: Path | None = None,
    split: str = "train",
    episodes: int = 1200,
    failures: bool = False,
    images: Images = "lossless",
    noise: float = 0.1,
    seed: int = 0,
    num_envs: int = 32,
    workers: int = 2,
    sim: SimConfig | None = None,
    device: str = "auto",
) -> None:
    """Write demonstrations of the scripted expert, or rollouts of a policy, as a dataset in lerobot's format v3.

    With the options of a `genvla pretrain` run, the demonstrations are the very ones that it learns from.

    Args:
        scenes: Folder of the scene set, as scenegen wrote it.
        output: Folder for the dataset; new or empty.
        checkpoint: Folder of the policy that acts; without one, the scripted expert demonstrates.
        split: Scenes to visit: train, heldout or all.
        episodes: How many to run, going round the scenes.
        failures: Whether episodes that fail are kept too; the column next.success tells them apart.
        images: How pictures are kept. lossless: MP4 that returns the very same pixels, which browsers do not play. video: MP4 of
            half the size that plays everywhere, with colours at half resolution. png: PNG beside the other columns, exact.
        noise: What disturbs the expert's actions, as a fraction of a full step; the dataset holds the action it meant.
        seed: Seed of the episodes and of all that is random in them.
        num_envs: Environments that run side by side.
        workers: Simulator processes that share them; 0 simulates in this process.
        sim: The simulated set-up. By default the standard one, or that of the policy's training.
        device: Where the policy runs: auto, cpu or cuda.

    Raises:
        UserError: something given does not exist or cannot be used, or no episode succeeded.
    """
    for name, found, least in (("episodes", episodes, 1), ("num_envs", num_envs, 1), ("workers", workers, 0)):
        if found < least:
            raise UserError(f"{name}: {found} found, at least {least} wanted")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"output: {output} exists and is not empty, want a new folder")
    from rich.console import Console

    from genvla.learning.files import atomic_path
    from genvla.learning.lerobot.writer import DatasetWriter
    from genvla.sim import make_vector_env

    console = Console()
    policy, sim = _policy(checkpoint, sim, device)
    specs = _specs(scenes, split, episodes, noise, sim, seed, expert=policy is None)
    with atomic_path(output) as folder, make_vector_env(scenes, sim, min(num_envs, len(specs)), workers) as env:
        folder.mkdir()
        writer = DatasetWriter(folder, images)
        shown = _write(writer, env, policy, specs, failures, noise, console)
        if not writer.episodes:
            raise UserError(f"none of {len(specs)} episodes succeeded, want at least one; --failures true keeps the others")
        writer.close()
        origin = {"tried": len(specs), "kept": writer.episodes, "seed": seed, "split": split, "sim": asdict(sim)}
        acted = {"actor": "expert", "noise": noise} if policy is None else {"actor": "policy"}
        _describe(folder, scenes, checkpoint, origin | acted)
        _preview(folder, shown)
    megabytes = sum(file.stat().st_size for file in output.rglob("*") if file.is_file()) / 2**20
    console.print(
        f"{writer.episodes} of {len(specs)} episodes, {writer.frames} control steps, {megabytes:.1f} MB written to {output}; "
        f'open it with LeRobotDataset("local/{output.name}", root="{output}")',
        soft_wrap=True,
    )


def _policy(checkpoint: Path | None, sim: SimConfig | None, device: str) -> tuple[FlowPolicy | None, SimConfig]:
    """Who acts, and in which set-up."""
    if checkpoint is None:
        return None, sim or SimConfig()
    from genvla.learning.runs import HardwareConfig
    from genvla.policy.checkpoints import load_policy

    policy = load_policy(checkpoint).to(HardwareConfig(device).fabric().device).eval()
    return policy, sim or load_sim(checkpoint) or replace(SimConfig(), image_size=policy.config.processor.image_size)


def _specs(scenes: Path, split: str, episodes: int, noise: float, sim: SimConfig, seed: int, expert: bool) -> list[EpisodeSpec]:
    """The episodes to run: those that pretraining or an evaluation with the same options has; in the order that they are written
    in, which is the one that pretraining holds them in."""
    from genvla.evaluation.episodes import episode_specs
    from genvla.learning.demonstrations import DemonstrationDataModule
    from genvla.sim import scenes_of

    ids = scenes_of(scenes, split)
    if not ids:
        raise UserError(f"{scenes}: no scene in split {split}, want at least one")
    if expert:
        data = DemonstrationDataModule(scenes, split, episodes, noise, sim, cache=None, seed=seed)  # type: ignore[arg-type]
        specs = data.specs()
    else:
        specs = episode_specs(ids, seed, total=episodes)
    return sorted(specs, key=lambda spec: (spec.scene_id, spec.seed))


def _write(
    writer: DatasetWriter,
    env: VectorEnv,
    policy: FlowPolicy | None,
    specs: list[EpisodeSpec],
    failures: bool,
    noise: float,
    console: Console,
) -> list[Demonstration]:
    """Runs the episodes and writes them in the order of specs; returns the first few."""
    from genvla.evaluation.episodes import run_episodes
    from genvla.evaluation.evaluate import policy_act
    from genvla.evaluation.progress import progress_bar
    from genvla.evaluation.recording import InOrder, Recorder

    shown: list[Demonstration] = []

    def keep(episode: Demonstration) -> None:
        if len(episode.actions) and (failures or episode.record.success_once):
            writer.add(episode)
            if len(shown) < SHOWN:
                shown.append(episode)

    hand_on: Keep = InOrder(specs, keep)
    with progress_bar(len(specs), console) as advance:
        if policy is None:
            for episode in env.demonstrate(specs, noise):
                advance(episode.record.success_once)
                hand_on(episode)
        else:
            act, recorder = policy_act(policy), Recorder(env, hand_on)
            run_episodes(act, recorder, specs, terminate_on_success=True, progress=lambda record: advance(record.success_once))
    return shown


def _describe(folder: Path, scenes: Path, checkpoint: Path | None, origin: dict[str, Any]) -> None:
    """Where the episodes come from, for programs and for people."""
    from genvla.evaluation.provenance import digest, scene_set_digest, versions
    from genvla.learning.lerobot import layout
    from genvla.learning.lerobot.card import card

    origin |= {"scene_set_digest": scene_set_digest(scenes), "versions": versions()}
    if checkpoint is not None:
        origin["checkpoint_digest"] = digest(checkpoint)
    (folder / layout.ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")
    (folder / "README.md").write_text(card(json.loads((folder / layout.INFO).read_text()), origin))


def _preview(folder: Path, episodes: list[Demonstration], least: int = 192) -> None:
    """preview.png: some pictures of some episodes, enlarged to `least` pixels."""
    from genvla.evaluation.videos import Clip, write_strip

    clips = []
    for episode in episodes:
        scale = -(-least // episode.images.shape[2])
        frames = episode.images[:, 0].repeat(scale, axis=1).repeat(scale, axis=2)
        clips.append(Clip(episode.record, list(np.ascontiguousarray(frames))))
    write_strip(clips, folder / "preview.png")
