"""The texts that language models are shown: files of this package with $names to fill in; a new wording is a new file."""

from __future__ import annotations

from importlib.resources import files
from string import Template


def prompt(name: str, **values: object) -> str:
    """The text of prompts/`name`.md with its $names filled in. Raises KeyError for one that is not given."""
    text = files("scenegen").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8")
    return Template(text).substitute(values).strip()
