"""The real openai package against a server of our own: every way in which an answer can come, fail to come, or come wrong."""

from __future__ import annotations

import base64
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from io import BytesIO
from typing import Any, Literal

import pytest
from PIL import Image
from pydantic import BaseModel, Field

from scenegen.errors import UserError
from scenegen.llm.base import Answer, BudgetError, LLMError
from scenegen.llm.cost import Price
from scenegen.llm.openai_client import OpenAIClient
from scenegen.llm.question import ModelSettings, question_sha, strict_schema
from tests.scenegen.llm.server import ChatServer, Reply

KEY = "sk-not-a-real-key-1234567890"


class Shade(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    label: str = Field(default="x", max_length=20)
    shade: Shade = Shade.RED


class Judgement(BaseModel):
    good: bool
    count: int = Field(ge=1)
    kind: Literal["mug"] = "mug"
    note: str | None = None
    part: Part = Field(description="the main part")
    parts: list[Part] = []


GOOD = '{"good": true, "count": 3, "kind": "mug", "note": null, "part": {"label": "a", "shade": "blue"}, "parts": []}'


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def client(server: ChatServer, **options: Any) -> OpenAIClient:
    return OpenAIClient(options.pop("model", "gpt-4o"), base_url=server.url, **{"retries": 2, "timeout": 5.0, **options})


def ask(asked: OpenAIClient, **options: Any) -> Answer[Judgement]:
    return asked.complete("judge", "You look.", "Is it good?", Judgement, **options)


def fails(replies: list[Reply], words: str, kind: type[Exception] = LLMError, **options: Any) -> ChatServer:
    with ChatServer(replies, **{k: options.pop(k) for k in ("last", "json_schema", "refused") if k in options}) as server:
        with pytest.raises(kind, match=words) as error:
            ask(client(server, **options))
        text = str(error.value)
        assert "\n" not in text and len(text) < 400 and KEY not in text and "127.0.0.1" not in text
        assert error.value.__cause__ is None and error.value.__suppress_context__ or error.value.__context__ is None
    return server


def test_answer_usage_and_question() -> None:
    with ChatServer([Reply(GOOD, usage=(1200, 300))]) as server:
        asked = client(server, temperature=0.5, seed=7, max_tokens=900)
        answer = ask(asked)
    assert (answer.value.count, answer.value.part.shade, answer.model) == (3, Shade.BLUE, "gpt-4o")
    assert answer.tokens == (1200, 300) and answer.usd == pytest.approx(1200 * 2.5e-6 + 300 * 10e-6)
    assert asked.ledger.line() == "1 call, 1,200 in / 300 out tokens, $0.01"
    assert answer.prompt_sha == question_sha(ModelSettings("gpt-4o", 0.5, 7, 900), "You look.", "Is it good?", Judgement)
    body = server.requests[0]
    assert (body["model"], body["temperature"], body["seed"], body["max_completion_tokens"]) == ("gpt-4o", 0.5, 7, 900)
    format_ = body["response_format"]["json_schema"]
    assert format_["strict"] is True and format_["name"] == "Judgement" and format_["schema"] == strict_schema(Judgement)
    assert server.keys == [f"Bearer {KEY}"]


def test_strict_schema_is_strict() -> None:
    seen = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                seen.append(node)
                assert node["required"] == list(node["properties"]) and node["additionalProperties"] is False
            assert not set(node) & {"default", "maxLength", "minimum", "title", "const", "allOf"} or "properties" not in node
            assert "$ref" not in node or len(node) == 1
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    schema = strict_schema(Judgement)
    walk(schema)
    assert len(seen) == 3  # Judgement, Part, and the part with a description of its own.
    assert schema["properties"]["kind"] == {"type": "string", "enum": ["mug"]}
    assert schema["properties"]["part"]["description"] == "the main part"
    assert schema["$defs"]["Part"]["properties"]["label"] == {"type": "string"}

    class Mapping(BaseModel):
        scores: dict[str, int]

    class Pair(BaseModel):
        pair: tuple[int, int]

    for bad in (Mapping, Pair):
        with pytest.raises(TypeError, match="an answer cannot use"):
            strict_schema(bad)


def test_images_are_sent_as_png() -> None:
    stream = BytesIO()
    Image.new("RGB", (8, 6), (200, 10, 10)).save(stream, "PNG")
    with ChatServer([Reply(GOOD)] * 2) as server:
        asked = client(server)
        with_image, without = ask(asked, images=[stream.getvalue()]), ask(asked)
    text, image = server.requests[0]["messages"][1]["content"]
    assert text == {"type": "text", "text": "Is it good?"}
    prefix, _, data = image["image_url"]["url"].partition(",")
    assert prefix == "data:image/png;base64" and Image.open(BytesIO(base64.b64decode(data))).size == (8, 6)
    assert with_image.prompt_sha != without.prompt_sha


@pytest.mark.parametrize(
    "wrong", ["no json at all", '{"good": true}', GOOD.replace("3", "0"), GOOD[:-30], GOOD.replace('"mug"', '"jug"')]
)
def test_a_wrong_answer_is_sent_back_once(wrong: str) -> None:
    with ChatServer([Reply(wrong), Reply(GOOD)]) as server:
        asked = client(server)
        answer = ask(asked)
    assert answer.value.count == 3 and len(server.requests) == 2
    assert answer.tokens == (200, 40) and asked.ledger.by_purpose()["judge"].calls == 2
    assistant, repair = server.requests[1]["messages"][2:]
    assert assistant == {"role": "assistant", "content": wrong}
    assert "does not fit the schema" in repair["content"] and len(repair["content"]) < 1000


def test_twice_wrong_is_an_error() -> None:
    server = fails([Reply('{"good": 5}'), Reply('{"good": true, "count": -1}')], "did not fit its schema, twice: count:")
    assert len(server.requests) == 2


def test_refusal_truncation_filter_nothing() -> None:
    fails([Reply(refusal="I cannot\nhelp with that.")], r"judge: the model refused: I cannot help with that\.")
    fails([Reply(GOOD[:40], finish="length")], "cut off at 4096 tokens; wanted a larger max_tokens")
    fails([Reply(GOOD, finish="content_filter")], "content filter")
    fails([Reply("")], "empty")
    fails([Reply("  \n")], "empty")
    fails([Reply(raw=b"<html>hello</html>")], "no chat completion")


def test_what_a_refusal_cost_is_counted() -> None:
    with ChatServer([Reply(refusal="No.", usage=(50, 5))]) as server:
        asked = client(server)
        with pytest.raises(LLMError):
            ask(asked)
    assert asked.ledger.usd == pytest.approx(50 * 2.5e-6 + 5 * 10e-6)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_servers_are_asked_again(status: int) -> None:
    with ChatServer([Reply(status=status, headers={"Retry-After": "0.3"}), Reply(GOOD)]) as server:
        asked = client(server)
        start = time.monotonic()
        assert ask(asked).value.good
        assert time.monotonic() - start >= 0.3
    assert len(server.requests) == 2 and asked.ledger.by_purpose()["judge"].calls == 1


def test_broken_for_ever() -> None:
    server = fails([], "judge: the server answered 500: .*status 500", last=Reply(status=500, headers={"Retry-After": "0.01"}))
    assert len(server.requests) == 3
    server = fails([], "the server answered 429", last=Reply(status=429, headers={"Retry-After": "0.01"}))
    assert len(server.requests) == 3


def test_wrong_key_or_model_is_said_at_once() -> None:
    leak = {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}
    server = fails([Reply(status=401, error=leak)], "OPENAI_API_KEY: the server answered 401; wanted", UserError)
    assert len(server.requests) == 1
    fails([Reply(status=403)], "OPENAI_API_KEY: .* 403", UserError)
    fails([Reply(status=404)], "llm_model: the server does not know 'gpt-4o'", UserError)
    quota = Reply(status=429, error={"code": "insufficient_quota"}, headers={"Retry-After": "0.01"})
    fails([], "nothing is left to spend", UserError, last=quota)


def test_the_key_is_never_shown() -> None:
    echo = {"message": f"you sent {KEY} and sk-proj-abcdef***wxyz"}
    fails([], r"you sent \*\*\* and \*\*\*", last=Reply(status=500, error=echo, headers={"Retry-After": "0.01"}))
    with ChatServer() as server:
        asked = client(server)
        assert KEY not in repr(asked) and KEY not in repr(asked.settings) and KEY not in repr(asked.ledger)


def test_slow_and_absent_servers() -> None:
    server = fails([], r"no answer within 0.2 s \(tries: 1\)", last=Reply(GOOD, delay=1.0), timeout=0.2, retries=0)
    assert len(server.requests) == 1
    with ChatServer() as gone:
        pass
    with pytest.raises(LLMError, match="cannot be reached"):
        ask(client(gone, retries=0))


def test_json_mode_where_schemas_are_not_known() -> None:
    with ChatServer([Reply(f"```json\n{GOOD}\n```"), Reply(GOOD)], json_schema=False) as server:
        asked = client(server)
        assert ask(asked).value.count == ask(asked).value.count == 3
    kinds = [body["response_format"]["type"] for body in server.requests]
    assert kinds == ["json_schema", "json_object", "json_object"]
    system = server.requests[2]["messages"][0]["content"]
    assert "JSON schema" in system and '"shade"' in system
    assert asked.ledger.by_purpose()["judge"].calls == 2


def test_older_parameters() -> None:
    with ChatServer([Reply(GOOD)] * 2, refused=["max_completion_tokens", "temperature"]) as server:
        asked = client(server)
        ask(asked)
        ask(asked)
    assert len(server.requests) == 4  # Two were turned down, two answered.
    assert server.requests[-1]["max_tokens"] == 4096 and "temperature" not in server.requests[-1]
    assert server.requests[-1]["response_format"]["type"] == "json_schema"


def test_a_bad_question_is_an_error_and_changes_nothing() -> None:
    with ChatServer([Reply(status=400, error={"message": "too many tokens"})] * 2, last=Reply(GOOD)) as server:
        asked = client(server)
        with pytest.raises(LLMError, match="turned the question down: .*too many tokens"):
            ask(asked)
        ask(asked)
    assert [body["response_format"]["type"] for body in server.requests] == ["json_schema", "json_object", "json_schema"]


def test_no_more_calls_at_a_time_than_allowed() -> None:
    with ChatServer(last=Reply(GOOD, delay=0.2)) as server:
        asked = client(server, concurrency=3)
        with ThreadPoolExecutor(9) as pool:
            assert all(answer.value.good for answer in pool.map(lambda _: ask(asked), range(9)))
    assert server.most_at_once == 3


def test_budget_stops_before_the_call_that_could_pass_it() -> None:
    with ChatServer(last=Reply(GOOD, usage=(1000, 1000))) as server:
        asked = client(server, max_usd=0.05, max_tokens=1000)  # 1 cent and a quarter each; a bound of a little more.
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: _outcome(asked), range(8)))
    assert 0 < results.count("ok") == len(server.requests) < 8 and set(results) == {"ok", "budget"}
    assert asked.ledger.usd <= 0.05
    assert "\n" not in _message(asked) and "wanted a larger --max_usd" in _message(asked)


def _outcome(asked: OpenAIClient) -> str:
    try:
        ask(asked)
    except BudgetError:
        return "budget"
    return "ok"


def _message(asked: OpenAIClient) -> str:
    with pytest.raises(BudgetError) as error:
        ask(asked)
    return str(error.value)


def test_a_server_that_counts_no_tokens_is_taken_at_the_bound() -> None:
    with ChatServer([Reply(GOOD, usage=None)]) as server:
        asked = client(server, max_tokens=500)
        ask(asked)
    spent = asked.ledger.by_purpose()["judge"]
    assert spent.tokens_out == 500 and spent.tokens_in > 100


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="max_usd: the price of our-own is not known; wanted also --llm_price"):
        OpenAIClient("our-own", max_usd=1.0)
    assert OpenAIClient("our-own", max_usd=1.0, price=Price(1, 2)).ledger.max_usd == 1.0
    with pytest.raises(UserError, match="concurrency 0"):
        OpenAIClient("gpt-4o", concurrency=0)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY: not set"):
        OpenAIClient("gpt-4o")
    with ChatServer([Reply(GOOD)]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert ask(OpenAIClient("our-own", retries=0)).usd == 0.0
    assert server.keys == ["Bearer none"]
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'genvla\[llm\]'"):
        OpenAIClient("gpt-4o")


def test_the_server_answers_any_schema() -> None:
    with ChatServer() as server:
        answer = ask(client(server)).value
    assert answer.good and answer.part.shade is Shade.RED and answer.note is None and answer.parts == []
