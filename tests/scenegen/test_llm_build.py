"""A whole build through the language model's protocol: asked, recorded, and made again without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenegen.cli import main
from scenegen.files import tree_digest
from scenegen.loader import load_scene_set
from scenegen.manifest import UNCOUNTED
from scenegen.schema import BUILD_LOG, PROVENANCE_FILE, QA_FILE, Provenance
from tests.scenegen.llm.server import ChatServer

SIZES = ["--count", "2", "--seed", "1", "--poses", "4", "--workers", "1", "--min-distractors", "1", "--distractors", "2"]
MODEL = ["--designer", "llm", "--judge", "--max-usd", "5"]


def content(folder: Path) -> str:
    return tree_digest(folder, UNCOUNTED | {BUILD_LOG})


def test_asked_recorded_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")
    cassette = ["--llm.cassette", str(tmp_path / "run.jsonl")]
    with ChatServer() as server:
        asked = [*SIZES, *MODEL, *cassette, "--llm.base_url", server.url]
        assert main(["build", "--output", str(tmp_path / "asked"), *asked]) == 0
        said = capfd.readouterr().out
        calls = len(server.requests)
    assert "2 scenes accepted" in said and f"{calls} calls" in said and "$" in said
    monkeypatch.delenv("OPENAI_API_KEY")
    replayed = [*SIZES, *MODEL, *cassette, "--llm.cassette_mode", "replay"]
    assert main(["build", "--output", str(tmp_path / "replayed"), *replayed]) == 0
    assert "0 calls" in capfd.readouterr().out
    assert content(tmp_path / "replayed") == content(tmp_path / "asked")
    for scene in load_scene_set(tmp_path / "asked"):
        provenance = Provenance.model_validate_json((scene.folder / PROVENANCE_FILE).read_bytes())
        assert provenance.model == "gpt-4o" and provenance.prompts
        assert '"mode": "llm"' in (scene.folder / QA_FILE).read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"sk-secret" in path.read_bytes() for path in files)


def test_a_budget_ends_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-test")
    tasks = tmp_path / "tasks.txt"
    tasks.write_text("put the apple on the plate\nput the lemon in the bowl\n")
    with ChatServer() as server:
        given = ["--tasks", str(tasks), "--designer", "llm", "--llm.base_url", server.url, "--max-usd", "0.001", "--poses", "4"]
        assert main(["build", "--output", str(tmp_path / "set"), *given, "--workers", "1"]) == 1
        assert server.requests == []
    said = capfd.readouterr()
    assert "0 scenes accepted" in said.out and "2 rejected" in said.out and "$" in said.err
