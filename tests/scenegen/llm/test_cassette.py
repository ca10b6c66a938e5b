"""Recording and replaying: same questions, same answers, no network; and what kills and edits do to the file."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import BaseModel

from scenegen.errors import UserError
from scenegen.llm.base import Answer, LLMError, T
from scenegen.llm.cassette import Cassette, CassetteClient
from scenegen.llm.connect import LLMOptions, open_client
from scenegen.llm.question import ModelSettings, question_sha
from tests.scenegen.llm.server import ChatServer, Reply

KEY = "sk-not-a-real-key-1234567890"
SETTINGS = ModelSettings("m")


class Word(BaseModel):
    word: str


class Other(BaseModel):
    word: str
    more: bool


class Counting:
    """Answers every question with how many came before it."""

    settings = SETTINGS

    def __init__(self) -> None:
        self.count = 0
        self.lock = threading.Lock()

    def complete(self, purpose: str, system: str, user: str, schema: type[T], images: Sequence[bytes] = ()) -> Answer[T]:
        with self.lock:
            self.count += 1
            value = schema.model_validate({"word": str(self.count), "more": True})
        time.sleep(0.01)
        return Answer(value, "m", question_sha(SETTINGS, system, user, schema, images), 0.5, (10, 2))


def test_record_then_replay(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "cassette.jsonl"
    inner = Counting()
    recording = CassetteClient(Cassette(path), inner)
    first = recording.complete("a", "s", "u", Word)
    assert (first.usd, first.tokens) == (0.5, (10, 2))
    again = recording.complete("a", "s", "u", Word)
    assert again.value == first.value and again.usd == 0 and inner.count == 1
    different = [
        recording.complete("a", "s", "u2", Word),
        recording.complete("a", "s2", "u", Word),
        recording.complete("a", "s", "u", Word, [b"\x89PNG"]),
    ]
    recording.complete("a", "s", "u", Other)
    assert inner.count == 5 and len({answer.prompt_sha for answer in [first, *different]}) == 4
    replaying = CassetteClient(Cassette(path))
    assert replaying.settings == SETTINGS
    answer = replaying.complete("b", "s", "u", Word)
    assert (answer.value, answer.model, answer.prompt_sha, answer.usd) == (first.value, "m", first.prompt_sha, 0.0)
    with pytest.raises(LLMError, match="judge: .*cassette.jsonl holds no answer to this question; record it") as error:
        replaying.complete("judge", "s", "never asked", Word)
    assert "\n" not in str(error.value)
    warmer = CassetteClient(Cassette(path), settings=ModelSettings("m", temperature=0.2))
    with pytest.raises(LLMError, match="holds no answer"):
        warmer.complete("b", "s", "u", Word)


def test_equal_questions_at_once_are_asked_once(tmp_path: Path) -> None:
    inner = Counting()
    recording = CassetteClient(Cassette(tmp_path / "c.jsonl"), inner)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: recording.complete("a", "s", f"u{i % 4}", Word).value.word, range(40)))
    assert inner.count == 4 and len(set(answers)) == 4
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("left", [1, 20, -2, -1])
def test_a_torn_line_is_asked_again(tmp_path: Path, left: int) -> None:
    path = tmp_path / "c.jsonl"
    recording = CassetteClient(Cassette(path), Counting())
    for user in ("u0", "u1"):
        recording.complete("a", "s", user, Word)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:left])
    assert len(Cassette(path)) == (2 if left == -1 else 1)  # Without its last line feed a line is whole.
    inner = Counting()
    resumed = CassetteClient(Cassette(path), inner)
    resumed.complete("a", "s", "u0", Word)
    resumed.complete("a", "s", "u1", Word)
    resumed.complete("a", "s", "u2", Word)
    assert inner.count == (1 if left == -1 else 2)
    replaying = CassetteClient(Cassette(path))
    assert [replaying.complete("a", "s", f"u{i}", Word).value.word for i in range(2)][0] == "1"
    assert len(Cassette(path)) == 3


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    CassetteClient(Cassette(path), Counting()).complete("a", "s", "u", Word)
    entry = json.loads(path.read_text())
    path.write_text("\n".join(["[1]", "null", '"x"', "{}", "\x00", json.dumps({**entry, "answer": {"wrong": 1}})]))
    with pytest.raises(LLMError, match="does not fit its question"):
        CassetteClient(Cassette(path)).complete("a", "s", "u", Word)
    path.write_text("hello")
    with pytest.raises(UserError, match="holds no answers of a model"):
        CassetteClient(Cassette(path))
    with pytest.raises(UserError, match="is a folder"):
        Cassette(tmp_path)


def test_options_to_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = tmp_path / "c.jsonl"
    with pytest.raises(UserError, match="wanted a recorded file to replay"):
        open_client(LLMOptions(cassette=path, cassette_mode="replay"))
    with ChatServer([Reply('{"word": "tea"}')]) as server:
        options = LLMOptions("our-own", server.url, max_usd=1.0, price="1,2", cassette=path, retries=0)
        recorded = open_client(options).complete("a", "s", "u", Word)
        assert open_client(LLMOptions("x", server.url, retries=0)).complete("a", "s", "u2", Word).value.word == "looks right"
    assert recorded.usd == pytest.approx(140e-6)
    text = path.read_text()
    assert KEY not in text and "sk-" not in text and "127.0.0.1" not in text and "Bearer" not in text
    monkeypatch.delenv("OPENAI_API_KEY")
    replayed = open_client(LLMOptions(cassette=path, cassette_mode="replay"))
    assert replayed.complete("a", "s", "u", Word).value.word == "tea" and replayed.ledger.line().startswith("0 calls")
