from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES = ("genvla", "scenegen", "deploy")
SCRIPTS = PROJECT["project"]["scripts"]


def test_every_data_file_of_the_packages_ships() -> None:
    shipped = PROJECT["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        folder = REPOSITORY / package
        present = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
        covered = {path for pattern in shipped[package] for path in folder.glob(pattern)}
        assert present <= covered, f"not in [tool.setuptools.package-data]: {sorted(map(str, present - covered))}"
        assert folder / "py.typed" in present


def test_every_folder_with_code_is_a_package() -> None:
    for package in PACKAGES:
        folders = {path.parent for path in (REPOSITORY / package).rglob("*.py")}
        assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("name", SCRIPTS)
def test_console_script_is_a_function_that_helps(name: str) -> None:
    module, function = SCRIPTS[name].split(":")
    assert callable(getattr(import_module(module), function))
    call = f"import sys; from {module} import {function}; sys.argv = ['{name}', '--help']; sys.exit({function}())"
    result = subprocess.run([sys.executable, "-c", call], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage")


def test_commands_carry_the_same_licence_and_changelog_as_the_metadata() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License")
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert "[Unreleased]" in changelog or f"[{PROJECT['project']['version']}]" in changelog
