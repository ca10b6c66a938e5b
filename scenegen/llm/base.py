"""What a language model is to scenegen: something that answers a question with an object of a given schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)


class LLMError(Exception):
    """A question that was not answered: refused, malformed, timed out, not reachable. Says why in one line."""


class BudgetError(LLMError):
    """The next call could cost more than is left to spend."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """`value`, the model that gave it, the SHA-256 of all that it was asked, what it cost (0 when replayed or when the prices are
    not known), and the tokens that it took, in and out."""

    value: T
    model: str
    prompt_sha: str
    usd: float
    tokens: tuple[int, int] = (0, 0)


class LLMClient(Protocol):
    """Answers are of `schema`, or LLMError is raised: never a half answer. `purpose` names the kind of question in logs and
    costs. `images` are PNG files. Safe to call from several threads."""

    def complete(self, purpose: str, system: str, user: str, schema: type[T], images: Sequence[bytes] = ()) -> Answer[T]: ...
