"""What the scene checks rest on: who stands on whom, what the words fit, what the arm reaches, what the camera sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from genvla.robots import kinematics
from scenegen.checks.files import AssetOnDisk
from scenegen.checks.goal import probe_goal
from scenegen.checks.referring import mistaken
from scenegen.checks.run import check_scene
from scenegen.checks.settle import TABLE, supports
from scenegen.checks.task import visible_shares
from scenegen.layout.bank import WORKSPACE
from scenegen.layout.reach import reach_down
from scenegen.schema import EdgeSpec, NodeSpec, Relation, Role, SceneGraph, Status
from tests.scenegen.checks import mutants


def graph(
    *others: NodeSpec, edges: tuple[tuple[str, str, Relation], ...] = (), target: str = "red mug", color: str = "red"
) -> SceneGraph:
    def thing(node_id: str, role: Role, name: str, category: str, **more: object) -> NodeSpec:
        return NodeSpec(id=node_id, name=name, role=role, category=category, description=name, **more)  # type: ignore[arg-type]

    nodes = [
        thing("room", Role.BACKGROUND, "room", "room"),
        thing("table", Role.CONTEXT, "table", "table"),
        thing("robot", Role.ROBOT, "arm", "robot"),
        thing("target", Role.TARGET, target, "mug", color=color, graspable=True),
        thing("destination", Role.DESTINATION, "blue plate", "plate", color="blue"),
        *others,
    ]
    placed = {child: (parent, relation) for child, parent, relation in edges}
    rows = [EdgeSpec(child="table", parent="room", relation=Relation.ON)]
    for node in nodes[2:]:
        parent, relation = placed.get(node.id, ("table", Relation.ON))
        rows.append(EdgeSpec(child=node.id, parent=parent, relation=relation))
    goal = {"predicate": "on", "subject": "target", "object": "destination"}
    return SceneGraph(instruction="put it there", nodes=nodes, edges=rows, goal=goal)  # type: ignore[arg-type]


def distractor(i: int, name: str, category: str, color: str) -> NodeSpec:
    return NodeSpec(id=f"distractor_{i}", name=name, role=Role.DISTRACTOR, category=category, description=name, color=color)


def test_supports_follow_the_edges():
    things = [distractor(i, f"thing {i}", category, "white") for i, category in enumerate(("tray", "block", "can"))]
    edges = (
        ("distractor_1", "distractor_0", Relation.ON),
        ("distractor_2", "distractor_1", Relation.BESIDE),
        ("target", "distractor_1", Relation.IN),
    )
    assert supports(graph(*things, edges=edges)) == [3, TABLE, TABLE, 2, 2]


@pytest.mark.parametrize(
    ("other", "confused"),
    [
        (distractor(0, "green mug", "mug", "green"), False),
        (distractor(0, "beige mug", "mug", "beige"), True),  # who tells it from white?
        (distractor(0, "cup", "teacup", "white"), True),
        (distractor(0, "white can", "can", "white"), False),
        (distractor(0, "white mug", "can", "white"), True),
        (distractor(0, "plate", "dish", "blue"), True),
    ],
)
def test_words_that_fit_two_things(other: NodeSpec, confused: bool):
    found = mistaken(graph(other, target="white mug", color="white"))
    assert bool(found) == confused and all("could mean" in reason for reason in found)


def test_a_name_without_colour_fits_every_thing_of_its_kind():
    assert mistaken(graph(distractor(0, "green mug", "mug", "green"), target="mug"))
    assert mistaken(graph(distractor(0, "green cup", "cup", "green"), target="mug"))
    assert not mistaken(graph(distractor(0, "green can", "can", "green"), target="mug"))


def test_reach_finds_poses_that_forward_kinematics_makes():
    """The workspace is reached wherever the hand is turned; what lies further than the stretched arm is not."""
    rng = np.random.default_rng(0)
    low, high = [WORKSPACE.x[0], WORKSPACE.y[0], 0.015], [WORKSPACE.x[1], WORKSPACE.y[1], 0.10]
    points = rng.uniform(low, high, (80, 3))
    yaws = np.where(rng.random(80) < 0.3, np.nan, rng.uniform(-np.pi, np.pi, 80))
    found = reach_down(points, yaws)
    assert found.reached.all() and found.distance_m.max() < 1e-4 and found.angle_rad.max() < 1e-3
    radius = np.linalg.norm(points[:, :2], axis=1, keepdims=True)
    far = reach_down(np.c_[points[:, :2] / radius * 0.56, points[:, 2]], yaws)
    assert not far.reached.any()


def test_reach_agrees_with_a_search_over_joint_angles():
    """Hands that point down, found by chance among random arms, are within reach as far out as they come."""
    lower, upper = torch.tensor([-3.1, -1.8, -2.1, 0, -1.7, 0]), torch.tensor([3.1, 1.9, 1.6, 0, 2.1, 0])
    q = lower + (upper - lower) * torch.rand(200_000, 6, generator=torch.Generator().manual_seed(0))
    q = q.double()
    q[:, 4] = np.pi / 2 - q[:, 1] - q[:, 2]  # the pitches of a planar arm that add up to straight down
    at, rotation = kinematics.forward(q)
    down = (rotation[:, 2, 0] < -0.999) & (at[:, 2] > 0.01) & (at[:, 2] < 0.12) & (q[:, 4] > -1.7) & (q[:, 4] < 2.1)
    down &= at[:, :2].norm(dim=1) > 0.15
    yaw = torch.atan2(rotation[:, 1, 1], rotation[:, 0, 1]) - np.pi / 2
    rows = torch.argsort(at[down][:, :2].norm(dim=1))[-60:]
    assert len(rows) == 60
    found = reach_down(at[down][rows].numpy(), yaw[down][rows].numpy())
    assert found.reached.mean() > 0.95


def test_a_free_target_is_seen_and_one_out_of_the_picture_is_not(scenes):
    scene = scenes["basket"]
    solids = [AssetOnDisk(entry.asset, scene.folder).solid for entry in scene.objects]
    shares = visible_shares(scene, solids, np.arange(len(scene.poses)))
    assert shares.max() == 1.0
    poses = scene.poses.copy()
    poses[:, scene.target_index, :2] = [0.05, 0.3]
    gone = visible_shares(dataclasses.replace(scene, poses=poses), solids, np.arange(len(scene.poses)))
    assert gone.max() == 0


def test_goal_probe_says_no_where_nothing_carries(scenes, tmp_path):
    scene = mutants.copy(scenes["mug"], tmp_path / "scene")
    solids = [AssetOnDisk(entry.asset, scene.folder).solid for entry in scene.objects]
    assert probe_goal(scene, solids) == 1.0
    beside = mutants.with_asset(scene, scene.destination_index, goal_point=(0.0, 0.25, 0.005))
    assert probe_goal(beside, solids) == 0.0
    verdict = check_scene(beside)[1]
    assert verdict.status is Status.FAIL and "let go over its goal" in verdict.reasons[0]
