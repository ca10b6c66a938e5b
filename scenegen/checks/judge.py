"""The asset checks, and a look at the whole scene, by a language model that sees pictures."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from scenegen.checks.views import VIEWS, asset_views
from scenegen.engines.procedural.textures import png
from scenegen.llm.base import LLMClient, LLMError
from scenegen.llm.prompts import prompt
from scenegen.loader import Scene
from scenegen.preview import Photographer
from scenegen.schema import AssetRecord, Check, NodeSpec, Status, Verdict

SCENE_SIZE = (640, 480)
MAX_WORDS = 20


class JudgeAnswer(BaseModel):
    """Criteria, true where met, and why not."""

    model_config = ConfigDict(extra="forbid")
    reason: str

    def unmet(self) -> list[str]:
        return [name.replace("_", " ") for name, value in self if value is False]


class AppearanceAnswer(JudgeAnswer):
    right_object: bool
    right_color: bool
    right_material: bool
    one_object: bool
    undamaged_texture: bool


class GeometryAnswer(JudgeAnswer):
    complete: bool
    nothing_twice: bool
    well_formed: bool
    nothing_floats: bool


class AlignmentAnswer(JudgeAnswer):
    right_type: bool
    right_color: bool
    right_count: bool
    right_parts: bool
    no_ground: bool


class SceneAnswer(JudgeAnswer):
    doable: bool
    unambiguous: bool
    not_done: bool
    target_visible: bool
    place_visible: bool


class Judge:
    """Asks one question for each check. A question without an answer is an `error`, never a pass. Keep one for many: it keeps its
    renderer. Raises RuntimeError where there is no Vulkan driver."""

    def __init__(self, client: LLMClient, photographer: Photographer | None = None) -> None:
        self._client = client
        self._photographer = photographer or Photographer()

    def check_asset(self, node: NodeSpec, asset: AssetRecord, folder: Path) -> list[Verdict]:
        """Semantic appearance, mesh geometry, text-to-3D alignment; the same three as the offline checks."""
        try:
            images = asset_views(self._photographer, folder / asset.files.visual)
        except Exception as error:  # a model that cannot be drawn is not judged; the renderer raises what it likes
            checks = (Check.APPEARANCE, Check.GEOMETRY, Check.ALIGNMENT)
            return [_error(check, node.id, f"no pictures: {error}") for check in checks]
        words = {"views": ", ".join(VIEWS), "called": json.dumps(node.name), "category": json.dumps(node.category)}
        words["description"] = json.dumps(_described(node))
        questions: list[tuple[Check, str, type[JudgeAnswer]]] = [
            (Check.APPEARANCE, "judge_appearance_v1", AppearanceAnswer),
            (Check.GEOMETRY, "judge_geometry_v1", GeometryAnswer),
            (Check.ALIGNMENT, "judge_alignment_v1", AlignmentAnswer),
        ]
        return [self._ask(check, node.id, prompt(text, **words), schema, images) for check, text, schema in questions]

    def check_scene(self, scene: Scene) -> Verdict:
        """Whether the instruction is doable and unambiguous in a picture of the nominal placement."""
        try:
            image = png(self._photographer.take(scene, 0, *SCENE_SIZE) / 255.0)
        except Exception as error:  # as above
            return _error(Check.TASK, "scene", f"no picture: {error}")
        question = prompt("judge_scene_v1", instruction=json.dumps(scene.instruction))
        return self._ask(Check.TASK, "scene", question, SceneAnswer, [image])

    def _ask(self, check: Check, subject: str, question: str, schema: type[JudgeAnswer], images: list[bytes]) -> Verdict:
        try:
            answer = self._client.complete(check.value, prompt("judge_v1"), question, schema, images)
        except LLMError as error:
            return _error(check, subject, str(error))
        unmet = answer.value.unmet()
        reason = " ".join(answer.value.reason.split()[:MAX_WORDS])
        return Verdict(
            check=check,
            subject=subject,
            status=Status.FAIL if unmet else Status.PASS,
            mode="llm",
            reasons=[f"not {', '.join(unmet)}: {reason or 'no reason given'}"] if unmet else [],
            model=answer.model,
            prompt_sha=answer.prompt_sha,
        )


def _described(node: NodeSpec) -> str:
    """The description, with what the order says beyond it."""
    said = node.description.lower()
    more = [word for word in (node.size, node.color, node.material) if word and word != "produce" and word not in said]
    return f"{node.description} ({', '.join(more)})" if more else node.description


def _error(check: Check, subject: str, text: str) -> Verdict:
    line = (text.splitlines() or [""])[0][:200] or "no answer"
    return Verdict(check=check, subject=subject, status=Status.ERROR, mode="llm", reasons=[line])
