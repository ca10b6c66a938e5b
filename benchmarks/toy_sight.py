"""Which small architecture sees best? A toy without simulator: shapes on a textured table, the instruction names two of them.

    python benchmarks/toy_sight.py --seconds 60 --variants conv patch

Each variant imitates reaching (flow loss plus grounding) for the same CPU time on one thread; printed are held-out errors. The
pictures span 0.5 m with 64 pixels, so 7.8 mm is one pixel and 11 mm the tolerance of a grasp. By default the target is always red
and the destination blue, which asks for sight only; with --binding the instruction decides, which takes much longer to learn.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import cv2
import numpy as np
import torch

from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.gemma import MixtureConfig
from genvla.policy.pi0 import Pi0Config
from genvla.policy.processor import PolicyInputs
from genvla.types import PRIVILEGED_NAMES

COLOURS = {
    "red": (200, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 200),
    "yellow": (220, 200, 50),
    "purple": (130, 50, 160),
    "white": (235, 235, 235),
    "orange": (230, 130, 30),
    "black": (30, 30, 30),
}
SHAPES = ("cube", "can", "stick")
SPAN, SIDE, FINE = 0.5, 64, 4  # metres across the picture, its pixels, supersampling


def draw(rng: np.random.Generator, binding: bool) -> tuple[np.ndarray, str, np.ndarray]:
    """A picture of four objects, an instruction, and the first eight of GROUNDING_NAMES (z = 0)."""
    size = SIDE * FINE
    coarse = rng.uniform(-25, 25, (8, 8, 3)) + rng.uniform(70, 200, 3)
    picture = cv2.resize(coarse.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    kinds = [(str(rng.choice(SHAPES)), colour) for colour in _colours(rng, binding)]
    places, yaws = [], rng.uniform(-np.pi, np.pi, 4)
    while len(places) < 4:
        place = rng.uniform(0.12, 0.88, 2)
        if all(np.linalg.norm(place - other) > 0.16 for other in places):
            places.append(place)
    for (shape, colour), place, yaw in zip(kinds, places, yaws, strict=True):
        rgb = np.clip(np.array(COLOURS[colour]) + rng.uniform(-20, 20, 3), 0, 255).tolist()
        half = {"cube": (0.04, 0.04), "can": (0.04, 0.04), "stick": (0.08, 0.02)}[shape]
        centre = place * size
        if shape == "can":
            cv2.circle(picture, [int(v) for v in centre * 16], int(half[0] * size * 16), rgb, -1, cv2.LINE_AA, 4)
            continue
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half * size
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        cv2.fillPoly(picture, [((corners @ turn.T + centre) * 16).astype(np.int32)], rgb, cv2.LINE_AA, 4)
    picture = cv2.resize(picture * rng.uniform(0.6, 1.2), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    picture = np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
    (shape, colour), (other, other_colour) = kinds[0], kinds[1]
    metres = [np.array([0.53 - y * SPAN, 0.25 - x * SPAN]) for x, y in places]
    bearing = 2 * yaws[0] if shape == "stick" else 0.0
    grounding = [*metres[0], 0, np.sin(bearing), np.cos(bearing), *metres[1], 0]
    return picture, f"put the {colour} {shape} on the {other_colour} {other}", np.array(grounding, np.float32)


def _colours(rng: np.random.Generator, binding: bool) -> list[str]:
    if binding:
        return rng.choice(list(COLOURS), 4, replace=False).tolist()
    return ["red", "blue", *rng.choice([c for c in COLOURS if c not in ("red", "blue")], 2, replace=False).tolist()]


def dataset(policy: FlowPolicy, count: int, seed: int, binding: bool) -> tuple[PolicyInputs, torch.Tensor]:
    """Inputs and normalised actions: four steps of at most 3 cm in x and y towards the target, closed when there."""
    rng = np.random.default_rng(seed)
    pictures, texts, labels = zip(*(draw(rng, binding) for _ in range(count)), strict=True)
    grounding = torch.tensor(np.stack(labels))
    near = torch.tensor(rng.random((count, 1)) < 0.5)
    spread = torch.tensor(rng.normal(0, 1, (count, 2)), dtype=torch.float32)
    hand = grounding[:, :2] + torch.where(near, spread * 0.02, spread * 0.1)
    position, actions = hand.clone(), torch.zeros(count, 4, 7)
    for step in range(4):
        move = ((grounding[:, :2] - position) / 0.03).clamp(-1, 1)
        position = position + move * 0.03
        actions[:, step, :2] = move
        actions[:, step, 5] = grounding[:, 3] / 2
        actions[:, step, 6] = ((grounding[:, :2] - position).norm(dim=1) > 0.005).float()
    proprio = torch.zeros(count, 7)
    proprio[:, 0], proprio[:, 1] = (hand[:, 0] - 0.28) / 0.3, hand[:, 1] / 0.3
    privileged = torch.zeros(count, len(PRIVILEGED_NAMES))
    privileged[:, 2] = privileged[:, 7] = 0.05
    privileged[:, [0, 1, 3, 4, 5, 6]] = grounding[:, [0, 1, 3, 4, 5, 6]]
    privileged[:, [8, 10]] = -grounding[:, [1, 6]] * 2 / SPAN  # the picture looks straight down
    privileged[:, [9, 11]] = (0.28 - grounding[:, [0, 5]]) * 2 / SPAN
    tokens, mask = policy.processor.tokenise(list(texts))
    images = torch.from_numpy(np.stack(pictures))[:, None]
    inputs = PolicyInputs(images, torch.ones(count, 1, dtype=torch.bool), tokens, mask, proprio, privileged)
    return inputs, actions


TINY = Pi0Config.tiny()


def variant(width: int = 96, depth: int = 3, mlp: int = 2, expert: int = 128, **vision: object) -> Pi0Config:
    """The tiny preset with another width and depth, and other vision options."""
    options = {"width": width, "mlp": mlp * width, **vision}
    mixtures = {"vlm": MixtureConfig(width, mlp * width), "action": MixtureConfig(expert, 4 * expert)}
    joint = replace(TINY.joint, **mixtures, layers=depth, feature_layer=depth - 1)
    return replace(TINY, vision=replace(TINY.vision, **options), joint=joint)


VARIANTS = {
    "patch": lambda: variant(stem="patch", coordinate_channels=False),
    "patch-xy": lambda: variant(stem="patch"),
    "conv": lambda: variant(coordinate_channels=False),
    "conv-xy": lambda: variant(),
    "conv-xy-0": lambda: variant(layers=0),
    "conv-xy-128": lambda: variant(width=128),
    "conv-xy-4": lambda: variant(depth=4),
    "conv-xy-wide": lambda: variant(stem_channels=(48, 96)),
    "conv-xy-fine": lambda: variant(patch_size=4, stem_channels=(32,)),
}


def train(policy: FlowPolicy, data: tuple[PolicyInputs, torch.Tensor], seconds: float, batch: int, rate: float) -> int:
    """Samples seen in `seconds` of CPU time of AdamW with a cosine schedule."""
    inputs, actions = data
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(1)
    start, seen = time.process_time(), 0
    while (used := (time.process_time() - start) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1, seen / (50 * batch)) * (0.02 + 0.98 * np.cos(used * np.pi / 2) ** 2)
        rows = torch.randint(len(actions), (batch,), generator=generator)
        losses = policy.imitation_losses(inputs[rows], actions[rows], generator)
        optimizer.zero_grad()
        (losses.flow + losses.grounding).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        seen += len(rows)
    return seen


@torch.no_grad()
def errors(policy: FlowPolicy, data: tuple[PolicyInputs, torch.Tensor]) -> dict[str, float]:
    """Median distances, mm: of predicted target and destination, and of where the chunk's mean would bring the hand."""
    inputs, actions = data
    prefix = policy.pi0.encode(inputs)
    difference = (policy.grounding_head(prefix)[0] * 0.15 + torch.tensor([0.28, 0, 0.05, 0, 0, 0.28, 0, 0.05])).sub(
        inputs.privileged[:, :8]
    )
    mean = policy.pi0.integrate(torch.zeros_like(actions), prefix, 1)
    reach = (mean[..., :2].clamp(-1, 1) - actions[..., :2]).sum(1).norm(dim=-1) * 0.03
    target = difference[:, :2].norm(dim=-1)
    return {
        "target_mm": target.median().item() * 1e3,
        "target_under_11mm": (target < 0.011).float().mean().item(),
        "destination_mm": difference[:, 5:7].norm(dim=-1).median().item() * 1e3,
        "reach_mm": reach.median().item() * 1e3,
        "reach_under_11mm": (reach < 0.011).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--samples", type=int, default=16_384)
    parser.add_argument("--variants", nargs="+", default=["patch", "conv-xy"], choices=list(VARIANTS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--binding", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    reference = FlowPolicy()
    training, held_out = (dataset(reference, count, seed, options.binding) for count, seed in ((options.samples, 1), (512, 2)))
    for name in options.variants:
        torch.manual_seed(0)
        policy = FlowPolicy(VARIANTS[name]())
        seen = train(policy, training, options.seconds, options.batch, options.rate)
        figures = "  ".join(f"{key} {value:.3g}" for key, value in errors(policy, held_out).items())
        print(
            f"{name:15s} {sum(p.numel() for p in policy.parameters()) / 1e6:.2f} M  {seen / options.seconds:.0f}/s  {figures}",
            flush=True,
        )


if __name__ == "__main__":
    main()
