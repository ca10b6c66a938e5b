"""The pages under docs/benchmarks hold what the raw numbers beside them say."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_pages", ROOT / "benchmarks" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "docs" / "benchmarks", tmp_path / "benchmarks"))


def test_pages_are_up_to_date(pages: ModuleType, folder: Path) -> None:
    """If this fails: python benchmarks/pages.py"""
    pages.write_pages(folder)
    for name in pages.PAGES:
        assert (folder / f"{name}.md").read_text() == (ROOT / "docs" / "benchmarks" / f"{name}.md").read_text()


def test_tables_follow_the_raw_numbers(pages: ModuleType, folder: Path) -> None:
    path = folder / "raw" / "policy.json"
    result = json.loads(path.read_text())
    result["summary"]["K=1 eager"]["p50"] = 123.45
    result["machine"]["cores"], result["other_work"] = 2, 0.1
    path.write_text(json.dumps(result))
    pages.write_pages(folder)
    written = (folder / "policy.md").read_text()
    assert "| 1 | 123.5 |" in written or "| 1 | 123.4 |" in written
    assert "other programs took 0.10 cores meanwhile" in written
    assert "busy" not in written
    result["other_work"] = 0.3
    path.write_text(json.dumps(result))
    pages.write_pages(folder)
    assert "The machine was busy" in (folder / "policy.md").read_text()


def test_a_table_is_markdown(pages: ModuleType) -> None:
    assert pages.markdown([["a", "b"], ["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"
