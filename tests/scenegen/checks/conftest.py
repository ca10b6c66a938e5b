"""Good scenes, built once: what the mutants are made of."""

from __future__ import annotations

import pytest

from scenegen.loader import Scene
from tests.scenegen.building import built

TASKS = {
    "mug": "put the red mug on the blue plate",
    "bowl": "put the carrot in the white bowl",
    "basket": "put the small green block in the brown basket",
}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    folder = tmp_path_factory.mktemp("checks")
    return {name: built(folder / name, task, 7 + i, 0.1, 8, (1, 2)) for i, (name, task) in enumerate(TASKS.items())}
