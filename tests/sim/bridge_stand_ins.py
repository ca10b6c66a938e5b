"""Boxes in the place of ManiSkill's Bridge assets, under the names and in the layout that its tasks read, so that the tasks' own
code runs without the download: objects, tables, photographs of one colour. They look nothing like the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import trimesh

TABLE_COLOUR, SINK_COLOUR = (250, 10, 240), (10, 240, 250)
"""RGB of the two photographs."""

SIZES = {
    "bridge_carrot_generated_modified": (0.08, 0.03, 0.03),
    "bridge_plate_objaverse_larger": (0.16, 0.16, 0.01),
    "eggplant": (0.08, 0.03, 0.03),
    "dummy_sink_target_plane": (0.10, 0.10, 0.01),
    "sink": (0.5, 0.5, 0.02),
}
"""Metres."""

TABLE_HEIGHT = 0.862


def write_bridge_stand_ins(folder: Path) -> Path:
    """Fills and returns the folder that stands for tasks/bridge_v2_real2sim_dataset."""
    for name, size in SIZES.items():
        model = folder / "custom" / "models" / name
        model.mkdir(parents=True)
        box = trimesh.creation.box(size)
        box.export(model / "collision.obj")
        box.export(model / "textured.glb")
    corners = {name: {"min": [-s / 2 for s in size], "max": [s / 2 for s in size]} for name, size in SIZES.items()}
    records = {name: {"bbox": box, "scales": [1.0], "density": 500} for name, box in corners.items()}
    (folder / "custom" / "info_bridge_custom_v0.json").write_text(json.dumps(records))
    (folder / "stages").mkdir()
    for version in (1, 2):
        slab = trimesh.creation.box((1.2, 0.1, 1.2))  # y is up in the file; the tasks put its origin at (2.0634, 2.8313, 0)
        slab.apply_translation([-2.1, TABLE_HEIGHT - 0.05, 2.8])
        slab.export(folder / "stages" / f"bridge_table_1_v{version}.glb")
    (folder / "real_inpainting").mkdir()
    for name, colour in (("bridge_real_eval_1", TABLE_COLOUR), ("bridge_sink", SINK_COLOUR)):
        photograph = np.full((480, 640, 3), colour[::-1], dtype=np.uint8)  # OpenCV writes BGR
        cv2.imwrite(str(folder / "real_inpainting" / f"{name}.png"), photograph)
    return folder
