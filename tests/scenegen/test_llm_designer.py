"""The designer that asks a language model: full runs against a server, and what becomes of answers that make no scene."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenegen.designer.drafts import MAX_STEPS, DraftError, draft_schema, instruction_of, to_graph
from scenegen.designer.llm import LLMDesigner
from scenegen.designer.rules import design_scene, fits, parse_task
from scenegen.designer.tasks import generate_tasks
from scenegen.engines.procedural.catalog import BASIC, FULL
from scenegen.errors import UserError
from scenegen.llm.base import LLMError
from scenegen.llm.cassette import Cassette, CassetteClient
from scenegen.llm.openai_client import OpenAIClient
from scenegen.palette import PALETTE
from scenegen.schema import EdgeSpec, Relation, Role, SceneGraph
from tests.scenegen.llm.server import ChatServer, Reply

TASK = "Put the red block on the white plate."
Change = Callable[[dict[str, Any]], Any]
DRAFT = draft_schema(FULL)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-real-key-1234567890")


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def designer(server: ChatServer, **options: Any) -> LLMDesigner:
    client = OpenAIClient("gpt-4o", base_url=server.url, retries=0)
    return LLMDesigner(client, options.pop("catalog", FULL), options.pop("distractors", (0, 3)), **options)


def thing(name: str, category: str, color: str, material: str, start: str = "on", at: str = "table") -> dict[str, Any]:
    shared = {"name": name, "category": category, "color": color, "material": material}
    return {**shared, "size": "medium", "start": start, "start_at": at}


def good() -> dict[str, Any]:
    return {
        "impossible": "",
        "relation": "on",
        "target": thing("red block", "block", "red", "wood"),
        "destination": thing("white plate", "plate", "white", "ceramic"),
        "distractors": [
            thing("blue tray", "tray", "blue", "wood"),
            thing("lemon", "lemon", "yellow", "produce", "in", "blue tray"),
            thing("green block", "block", "green", "plastic", "beside", "white plate"),
        ],
    }


def test_a_full_run_against_the_server(server: ChatServer) -> None:
    asked = designer(server)
    for seed, task in enumerate(generate_tasks(12, 3)):
        asked.require(task)
        design = asked.design(task, seed)
        graph = design.graph
        count = len(graph.objects) - 2
        expected = design_scene(task, seed, (count, count))
        facts = [(node.id, node.role, node.category, node.color, node.material, node.size) for node in graph.nodes]
        assert facts == [(node.id, node.role, node.category, node.color, node.material, node.size) for node in expected.nodes]
        assert (graph.goal, graph.edges, graph.instruction) == (expected.goal, expected.edges, task)
        assert [node.description for node in graph.objects] == [node.description for node in expected.objects]
        assert asked.design(task, seed).graph == graph and len(design.prompts) == 1
        assert design.usd > 0 and design.model == asked.model == "gpt-4o"
    assert asked.client.ledger.by_purpose().keys() == {"design"}  # type: ignore[attr-defined]


def test_recorded_runs_replay_without_a_server(tmp_path: Path) -> None:
    def run(asked: LLMDesigner) -> tuple[list[str], list[SceneGraph], list[str]]:
        tasks = asked.propose(30, 1)
        made = [asked.design(task, seed, ["too crowded"] * seed) for seed, task in enumerate(tasks[:6])]
        return tasks, [design.graph for design in made], [sha for design in made for sha in design.prompts]

    path = tmp_path / "cassette.jsonl"
    with ChatServer() as gone:
        asked = designer(gone)
        asked.client = CassetteClient(Cassette(path), asked.client)
        recorded = run(asked)
    replayed = LLMDesigner(CassetteClient(Cassette(path)), FULL, (0, 3))
    assert run(replayed) == recorded and replayed.model == "gpt-4o"
    with pytest.raises(LLMError, match="holds no answer"):
        replayed.design(recorded[0][0], 99)
    with pytest.raises(LLMError, match="cannot be reached"):
        designer(gone).design(TASK, 0)


def test_threads_do_not_disturb_one_another(server: ChatServer) -> None:
    asked, tasks = designer(server), generate_tasks(16, 8)
    one_by_one = [asked.design(task, seed) for seed, task in enumerate(tasks)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(asked.design, tasks, range(len(tasks)))) == one_by_one


def test_seed_and_feedback_enter_the_question(server: ChatServer) -> None:
    asked = designer(server)
    graphs = [asked.design(TASK, seed).graph for seed in range(12)]
    assert len({graph.model_dump_json() for graph in graphs}) > 8
    assert {len(graph.objects) - 2 for graph in graphs} == {0, 1, 2, 3}
    start = len(server.requests)
    asked.design(TASK, 0, [f"reason {i}:\nthe block fell" for i in range(20)])
    question = server.requests[start]["messages"][1]["content"]
    assert "- reason 19: the block fell" in question and "reason 3:" not in question
    assert '"Put the red block on the white plate."' in question


@pytest.mark.parametrize("free", [False, True])
def test_schemas_are_within_the_limits_of_strict_mode(server: ChatServer, free: bool) -> None:
    asked = designer(server, free_categories=free)
    asked.design(TASK, 1)
    schema = server.requests[-1]["response_format"]["json_schema"]["schema"]
    things = schema["$defs"]["Thing"]["properties"]
    assert things["color"]["enum"] == list(PALETTE)
    assert things["category"].get("enum") == (None if free else list(FULL.families))
    enums = [value["enum"] for value in things.values() if "enum" in value]
    assert sum(map(len, enums)) <= 500 and all(sum(map(len, enum)) <= 7500 for enum in enums)
    system = server.requests[-1]["messages"][0]["content"]
    assert "$" not in system and ("- glue stick (glue): any;" in system) is not free


def test_json_mode_servers_and_small_catalogues() -> None:
    with ChatServer(json_schema=False, catalog=BASIC) as old:
        graph = designer(old, catalog=BASIC, distractors=(2, 2)).design("put the carrot in the bowl", 4).graph
    assert len(graph.objects) == 4 and all(node.category in BASIC.families for node in graph.objects)


@pytest.mark.parametrize("task", ["fold the cloth", "drive the car into the garage", "put the plate on the tray"])
def test_impossible_tasks_are_the_users(server: ChatServer, task: str) -> None:
    with pytest.raises(UserError, match="found it impossible: .*; wanted one rigid thing") as error:
        designer(server).design(task, 0)
    assert "\n" not in str(error.value) and task in str(error.value)


def test_relations_become_edges() -> None:
    with ChatServer([Reply(json.dumps(good()))]) as scripted:
        graph = designer(scripted).design(TASK, 0).graph
    assert graph.instruction == "put the red block on the white plate"
    assert graph.edges[2:] == [
        EdgeSpec(child="target", parent="table", relation=Relation.ON),
        EdgeSpec(child="destination", parent="table", relation=Relation.ON),
        EdgeSpec(child="distractor_0", parent="table", relation=Relation.ON),
        EdgeSpec(child="distractor_1", parent="distractor_0", relation=Relation.IN),
        EdgeSpec(child="distractor_2", parent="destination", relation=Relation.BESIDE),
    ]
    assert graph.node("distractor_0").container and not graph.node("distractor_0").graspable


def _target(**changes: Any) -> Change:
    return lambda draft: draft["target"].update(changes)


def _distractor(**changes: Any) -> Change:
    return lambda draft: draft["distractors"][2].update(changes)


BAD: list[tuple[Change, str]] = [
    (lambda d: d.update(target=None), "target and destination must be given"),
    (lambda d: d["distractors"].extend([thing(f"carrot {i}", "carrot", "orange", "produce") for i in range(4)]), "7 distractors"),
    (_target(category="plate", color="red", material="wood"), "cannot lift a plate"),
    (_target(category="ball", material="rubber"), "the task says category block, not ball"),
    (_target(color="blue"), "the task says color red, not blue"),
    (_target(color="brown"), "a block is never brown"),
    (_target(material="foam"), "a block is never of foam"),
    (lambda d: d.update(relation="in"), "nothing goes in a plate"),
    (_target(name="../../etc/passwd"), "wanted letters, digits"),
    (_target(name=""), "wanted letters, digits"),
    (_target(name="table"), "no names of things"),
    (_distractor(name="Red  Block"), "two things are called 'red block'"),
    (_distractor(color="red"), "both a block and not told apart"),
    (_distractor(category="coaster", color="white", material="wood"), "a white coaster looks like the white plate"),
    (_distractor(category="bowl"), "too many distractors that things stand on"),
    (_distractor(start_at="shelf"), "starts at 'shelf'; wanted table or"),
    (_distractor(start_at="table"), "starts beside the table"),
    (_distractor(start_at="lemon"), "which does not stand on the table"),
    (_distractor(start="on", start_at="lemon"), "nothing goes on a lemon"),
    (_distractor(start="on", start_at="red block"), "on the target; wanted nothing there"),
    (_target(start="on", start_at="white plate"), "on the destination; wanted nothing there"),
    (_distractor(start="on", start_at="green block"), "in a circle"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_a_bad_draft_is_sent_back_once_and_then_refused(change: Change, words: str) -> None:
    bad = good()
    change(bad)
    with ChatServer([Reply(json.dumps(draft)) for draft in (bad, good(), bad, bad)]) as scripted:
        asked = designer(scripted)
        design = asked.design(TASK, 0)
        assert len(design.graph.objects) == 5 and len(set(design.prompts)) == 2
        repair = scripted.requests[1]["messages"][1]["content"]
        assert words in repair and "It cannot be used" in repair
        with pytest.raises(LLMError, match="design: no usable scene for .* in two answers") as error:
            asked.design(TASK, 0)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_names_are_never_paths_or_ids() -> None:
    draft = good()
    draft["target"]["name"] = "Red   BLOCK"
    graph = to_graph(DRAFT.model_validate(draft), TASK, FULL, (0, 3))
    assert [node.id for node in graph.objects] == ["target", "destination", "distractor_0", "distractor_1", "distractor_2"]
    assert graph.node("target").name == "red block"


def test_the_target_may_start_in_something_else() -> None:
    draft = good()
    draft["target"] = thing("lime", "lime", "green", "produce", "in", "gray bowl")
    draft["distractors"] = [thing("gray bowl", "bowl", "gray", "ceramic")]
    task = "take the lime out of the gray bowl and put it on the white plate"
    graph = to_graph(DRAFT.model_validate(draft), task, FULL, (0, 3))
    assert EdgeSpec(child="target", parent="distractor_0", relation=Relation.IN) in graph.edges


def test_any_category_when_free() -> None:
    draft = {
        "impossible": "",
        "relation": "in",
        "target": {
            **thing("rubber duck", "rubber duck", "yellow", "rubber"),
            **{
                "description": "a yellow rubber duck with an orange beak",
                "narrowest_mm": 42,
                "longest_mm": 60,
                "holds": "nothing",
            },
        },
        "destination": {
            **thing("flower pot", "flower pot", "brown", "terracotta"),
            **{"description": "a brown terracotta flower pot", "narrowest_mm": 110, "longest_mm": 130, "holds": "in"},
        },
        "distractors": [],
    }
    too_wide = json.loads(json.dumps(draft))
    too_wide["target"]["narrowest_mm"] = 55
    closed = json.loads(json.dumps(draft))
    closed["destination"]["holds"] = "on"
    with ChatServer([Reply(json.dumps(d)) for d in (too_wide, draft, closed, closed)]) as scripted:
        asked = designer(scripted, free_categories=True)
        graph = asked.design("Drop the rubber duck into the flower pot", 0).graph
        assert "the gripper cannot lift a rubber duck" in scripted.requests[1]["messages"][1]["content"]
        with pytest.raises(LLMError, match="nothing goes in a flower pot"):
            asked.design("Drop the rubber duck into the flower pot", 0)
    duck, pot = graph.node("target"), graph.node("destination")
    assert (duck.category, duck.description, duck.graspable) == ("rubber duck", "a yellow rubber duck with an orange beak", True)
    assert (pot.material, pot.container, graph.goal.predicate) == ("terracotta", True, Relation.IN)


def test_free_run_against_the_server(server: ChatServer) -> None:
    asked = designer(server, free_categories=True)
    for seed, task in enumerate(generate_tasks(6, 2)):
        assert asked.design(task, seed).graph.instruction == task
    assert len(asked.propose(8, 0)) == 8


_PLACES = [family.category for family in FULL.places]
_THING = st.fixed_dictionaries(
    {
        "category": st.one_of(st.sampled_from(["tray", "carton", *_PLACES]), st.sampled_from(list(FULL.families))),
        "color": st.sampled_from(list(PALETTE)),
        "material": st.just("wood"),
        "size": st.sampled_from(["small", "medium", "large"]),
        "start": st.sampled_from(["on", "on", "in", "beside"]),
        "start_at": st.integers(0, 11),
    }
).map(lambda t: {**t, "color": _fit(t, "colors", "color"), "material": _fit(t, "materials", "material")})


def _named(things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Names them a, b, c; most start on the table or at one before them."""
    places = [[*"abc"[:i], *["table"] * 4, "red block", "white plate", "c"] for i in range(3)]
    return [{**t, "name": "abc"[i], "start_at": places[i][t["start_at"] % len(places[i])]} for i, t in enumerate(things)]


def _fit(t: dict[str, Any], choices: str, field: str) -> str:
    allowed = getattr(FULL.families[t["category"]], choices)
    return t[field] if t[field] in allowed else allowed[0]


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {
            "impossible": st.just(""),
            "relation": st.sampled_from(["on", "on", "on", "in"]),
            "target": st.sampled_from([*[good()["target"]] * 3, thing("red block", "block", "red", "wood", "on", "a")]),
            "destination": st.just(good()["destination"]),
            "distractors": st.lists(_THING, max_size=3).map(_named),
        }
    )
)
def test_any_draft_is_a_sound_scene_or_a_list_of_problems(draft: dict[str, Any]) -> None:
    try:
        graph = to_graph(DRAFT.model_validate(draft), TASK, FULL, (0, 6))
    except DraftError as error:
        assert error.problems and all(problem and "\n" not in problem for problem in error.problems)
        return
    assert SceneGraph.model_validate_json(graph.model_dump_json()) == graph
    above = {edge.child: edge for edge in graph.edges}
    for node in graph.objects:
        edge, steps = above[node.id], 0
        while edge.parent != "table":
            if edge.relation is not Relation.BESIDE:
                holder, held = (FULL.families[graph.node(i).category] for i in (edge.parent, edge.child))
                assert edge.relation in holder.relations and fits(held, holder)
                assert graph.node(edge.parent).role is Role.DISTRACTOR
                steps += 1
            edge = above[edge.parent]
        assert steps <= MAX_STEPS and edge.relation is Relation.ON
    named = {(graph.node(i).category, graph.node(i).color) for i in ("target", "destination")}
    assert not named & {(node.category, node.color) for node in graph.objects if node.role is Role.DISTRACTOR}


def test_proposals_are_distinct_possible_and_conditioned(server: ChatServer) -> None:
    asked, start = designer(server), len(server.requests)
    tasks = asked.propose(60, 5)
    assert len(tasks) == len(set(tasks)) == 60
    parsed = [parse_task(task) for task in tasks]
    assert len({(t.subject.words, t.object.words, t.relation) for t in parsed}) == 60
    questions = [request["messages"][1]["content"] for request in server.requests[start:]]
    assert len(questions) >= 3 and "Already there" not in questions[0] and f"- {tasks[0]}" in questions[1]
    assert asked.propose(60, 5) == tasks and asked.propose(60, 6) != tasks


def _proposal(sentence: str, target: str, relation: str, destination: str) -> dict[str, str]:
    return {"sentence": sentence, "target": target, "relation": relation, "destination": destination}


def test_impossible_and_repeated_proposals_are_dropped() -> None:
    usable = [
        _proposal("Put the red apple on the white plate.", "apple", "on", "plate"),
        _proposal("put the lemon in the gray bowl", "lemon", "in", "bowl"),
    ]
    useless = [
        _proposal("place a red apple onto the white plate", "apple", "on", "plate"),  # Said already.
        _proposal("put the apple in the white plate", "apple", "on", "plate"),
        _proposal("put the red block on the blue block", "block", "on", "block"),
        _proposal("put the cucumber on the coaster", "cucumber", "on", "coaster"),
        _proposal("put the blue carrot on the plate", "carrot", "on", "plate"),
        _proposal("wipe the table", "sponge", "on", "plate"),
        _proposal("put the lemon\nin the basket", "lemon", "in", "basket"),
        _proposal("put the lime in the basket", "lemon", "in", "basket"),
    ]
    reply = Reply(json.dumps({"tasks": [*usable, *useless]}))
    with ChatServer(last=reply) as scripted:
        asked = designer(scripted)
        assert asked.propose(2, 0) == ["put the red apple on the white plate", "put the lemon in the gray bowl"]
        with pytest.raises(UserError, match="count: found 3; wanted at most 2, all the possible tasks .* in 3 rounds") as error:
            asked.propose(3, 0)
        assert "\n" not in str(error.value) and len(scripted.requests) == 4
        with pytest.raises(UserError, match="count: found 0"):
            asked.propose(0, 0)


@pytest.mark.parametrize("task", ["", "   ", ".", "a\nb", "put the\x00 block on it", "x" * 200, "put \u202e it"])
def test_required_of_a_task(server: ChatServer, task: str) -> None:
    before = len(server.requests)
    for refused in (designer(server).require, lambda t: designer(server).design(t, 0)):
        with pytest.raises(UserError, match="^task ") as error:
            refused(task)
        assert "\n" not in str(error.value) and len(str(error.value)) < 200
    assert len(server.requests) == before


def test_instructions_are_the_users_words() -> None:
    assert instruction_of("  Put the Lego  brick on Anna's tray! ") == "put the Lego brick on Anna's tray"
    assert instruction_of("räum die Tasse weg.") == "räum die Tasse weg"


def test_distractors_out_of_range(server: ChatServer) -> None:
    for bad in ((3, 1), (-1, 2), (0, 7)):
        with pytest.raises(UserError, match="distractors: found"):
            designer(server, distractors=bad)
