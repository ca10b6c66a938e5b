"""The README.md of a dataset: what it holds, for who finds it on a disk or on a hub."""

from __future__ import annotations

from typing import Any

MEANING = {
    "observation.state": "pose of the gripper link in the robot's base frame (x forward, y left, z up; rotation relative to the "
    "top-down gripper, R = Rz(yaw) Ry(pitch) Rx(roll)), and its opening, before the step",
    "action": "change of the target pose over the step, p' = p + dp and R' = R(droll, dpitch, dyaw) R, and the gripper's command",
    "privileged": "simulator state, for critics and grounding labels; no robot has it",
    "next.reward": "1 in the step of the first success, else 0",
    "next.success": "whether the task has been done by the end of the step",
    "next.done": "true in an episode's last step",
    "scene_id": "scene of the scene set",
    "seed": "of everything random in the episode",
}
PICTURE = "RGB of the policy's camera before the step"


def card(info: dict[str, Any], origin: dict[str, Any]) -> str:
    """The text; its head is what the Hugging Face hub reads."""
    who = "a scripted expert" if origin["actor"] == "expert" else "a policy"
    disturbed = ""
    if origin.get("noise"):
        disturbed = f" What it executed was disturbed (noise {origin['noise']:g}); `action` is what it meant."
    rows = []
    for name, feature in info["features"].items():
        meaning = PICTURE if feature["dtype"] in ("image", "video") else MEANING.get(name)
        if meaning:
            names = ", ".join(feature["names"] or ()) if len(feature["shape"]) == 1 else ""
            units = ", ".join(feature.get("units", ()))
            rows.append(f"| `{name}` | {feature['dtype']} {feature['shape']} | {meaning} | {names} | {units} |")
    return "\n".join(
        [
            "---",
            "task_categories: [robotics]",
            "tags: [LeRobot]",
            "configs: [{config_name: default, data_files: data/*/*.parquet}]",
            "---",
            "# Tabletop manipulation with a simulated WidowX 250S",
            "",
            f"{info['total_episodes']} episodes ({info['total_frames']} control steps at {info['fps']} Hz, {info['total_tasks']} "
            f"instructions) of {who} in generated scenes, written by genvla in lerobot's format {info['codebase_version']}."
            f"{disturbed} `meta/genvla.json` holds the simulated set-up.",
            "",
            "![some of the episodes](preview.png)",
            "",
            "| column | type | meaning | entries | units |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
