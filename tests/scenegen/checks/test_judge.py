"""The judge with a client that answers in this process, as a language model would: of the schema, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from scenegen.checks.judge import Judge
from scenegen.checks.views import SIZE, VIEWS, asset_views
from scenegen.llm.base import Answer, BudgetError, LLMError
from scenegen.preview import Photographer
from scenegen.schema import Check, Status

FACT = "an over-long reason " + "word " * 40


class Client:
    """Says false to the criteria in `unmet`, or raises; remembers what it was asked."""

    def __init__(self, unmet: Sequence[str] = (), error: LLMError | None = None) -> None:
        self.unmet, self.error = unmet, error
        self.asked: list[tuple[str, str, str, list[bytes]]] = []

    def complete(self, purpose, system, user, schema, images=()):  # noqa: ANN001, ANN201
        self.asked.append((purpose, system, user, list(images)))
        if self.error is not None:
            raise self.error
        fields = {name: name not in self.unmet if info.annotation is bool else FACT for name, info in schema.model_fields.items()}
        value: BaseModel = schema.model_validate(fields)
        return Answer(value, "toy-model", sha256((system + user).encode() + b"".join(images)).hexdigest(), 0.0)


class Still:
    """A photographer whose pictures are plain, so that no renderer is needed."""

    def asset_view(self, visual: Path, size: int, **angles: float) -> np.ndarray:
        assert visual.is_file()
        return np.full((size, size, 3), 40 + len(angles), np.uint8)

    def take(self, scene, placement: int, width: int, height: int) -> np.ndarray:  # noqa: ANN001
        return np.full((height, width, 3), placement, np.uint8)


def judged(scene, client: Client):  # noqa: ANN001, ANN201
    entry = scene.objects[0]
    judge = Judge(client, Still())  # type: ignore[arg-type]
    return judge.check_asset(scene.bundle.graph.node(entry.id), entry.asset, scene.folder)


def test_all_met_is_a_pass_with_its_provenance(scenes):
    client = Client()
    verdicts = judged(scenes["mug"], client)
    assert [(v.check, v.status, v.mode) for v in verdicts] == [(check, Status.PASS, "llm") for check in list(Check)[:3]]
    assert all(v.model == "toy-model" and len(v.prompt_sha or "") == 64 and v.reasons == [] for v in verdicts)
    assert [purpose for purpose, *_ in client.asked] == [check.value for check in list(Check)[:3]]
    assert all(len(images) == len(VIEWS) for *_, images in client.asked)
    appearance, geometry, alignment = (user for _, _, user, _ in client.asked)
    assert '"a red' in appearance and '"red mug"' in alignment
    assert "red" not in geometry.replace("rendered", "") and '"mug"' in geometry


@pytest.mark.parametrize(
    ("unmet", "check"),
    [("right_color", Check.APPEARANCE), ("nothing_floats", Check.GEOMETRY), ("no_ground", Check.ALIGNMENT)],
)
def test_an_unmet_criterion_fails_its_check(scenes, unmet: str, check: Check):
    verdicts = {v.check: v for v in judged(scenes["mug"], Client([unmet]))}
    assert verdicts[check].status is Status.FAIL
    assert verdicts[check].reasons[0].startswith(f"not {unmet.replace('_', ' ')}")
    assert len(verdicts[check].reasons[0].split(": ")[1].split()) <= 20


@pytest.mark.parametrize("error", [LLMError("timed out\nafter 3 tries"), BudgetError("0.02 USD left, 0.05 needed")])
def test_no_answer_is_an_error(scenes, error: LLMError):
    verdicts = judged(scenes["mug"], Client(error=error))
    assert [v.status for v in verdicts] == [Status.ERROR] * 3
    assert {v.reasons[0] for v in verdicts} == {str(error).splitlines()[0]}
    assert Judge(Client(error=error), Still()).check_scene(scenes["mug"]).status is Status.ERROR  # type: ignore[arg-type]


def test_no_picture_is_an_error_and_asks_nothing(scenes):
    class Blind(Still):
        def asset_view(self, visual: Path, size: int, **angles: float) -> np.ndarray:
            raise RuntimeError("no Vulkan driver")

    client, entry = Client(), scenes["mug"].objects[0]
    verdicts = Judge(client, Blind()).check_asset(scenes["mug"].bundle.graph.node(entry.id), entry.asset, scenes["mug"].folder)  # type: ignore[arg-type]
    assert [v.status for v in verdicts] == [Status.ERROR] * 3 and client.asked == []


def test_scene_question(scenes):
    client = Client(["unambiguous"])
    verdict = Judge(client, Still()).check_scene(scenes["mug"])  # type: ignore[arg-type]
    assert (verdict.check, verdict.subject, verdict.status, verdict.mode) == (Check.TASK, "scene", Status.FAIL, "llm")
    assert scenes["mug"].instruction in client.asked[0][2] and len(client.asked[0][3]) == 1


@pytest.mark.slow
def test_views_are_real_pictures_and_the_same_again(scenes, tmp_path: Path):
    photographer = Photographer()
    visual = scenes["mug"].objects[0].visual
    views = asset_views(photographer, visual)
    assert views == asset_views(photographer, visual) and len(set(views)) == len(VIEWS)
    for i, view in enumerate(views):
        (tmp_path / f"{i}.png").write_bytes(view)
        pixels = np.asarray(Image.open(tmp_path / f"{i}.png").convert("RGB"), float)
        assert pixels.shape == (SIZE, SIZE, 3)
        red = (pixels[..., 0] > 1.6 * pixels[..., 1]).mean()
        assert 0.1 < red < 0.9
