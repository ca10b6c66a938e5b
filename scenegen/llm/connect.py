"""From options to a language model: one that is asked, one that is asked and recorded, or a recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenegen.errors import UserError
from scenegen.llm.cassette import Cassette, CassetteClient
from scenegen.llm.cost import find_price
from scenegen.llm.openai_client import OpenAIClient


@dataclass(frozen=True)
class LLMOptions:
    """What a user may say about the language model.

    Args:
        model: Name of the model, as its server knows it.
        base_url: Server that speaks OpenAI's chat completions; by default OPENAI_BASE_URL, else OpenAI.
        max_usd: Most that may be spent [USD].
        price: USD per million tokens as IN,OUT, for a model whose price is not known or has changed.
        temperature: How freely the model chooses; None leaves it to the server.
        seed: Sent to the server, which may make it answer alike again.
        max_tokens: Bound on one answer, thinking included.
        timeout: Longest wait for one try [s].
        retries: Tries after the first when the server is busy, fails or cannot be reached.
        concurrency: Most calls at a time.
        cassette: File of recorded answers.
        cassette_mode: record asks what the cassette does not hold and keeps the answers; replay never asks.
    """

    model: str = "gpt-4o"
    base_url: str | None = None
    max_usd: float | None = None
    price: str | None = None
    temperature: float | None = 1.0
    seed: int | None = 0
    max_tokens: int = 4096
    timeout: float = 60.0
    retries: int = 4
    concurrency: int = 8
    cassette: Path | None = None
    cassette_mode: Literal["record", "replay"] = "record"


def open_client(options: LLMOptions) -> OpenAIClient | CassetteClient:
    """The client that the options describe. A recording needs neither a key nor the package; it is of the model that was
    recorded. Raises UserError as OpenAIClient and Cassette do."""
    if options.cassette_mode == "replay":
        if options.cassette is None or not options.cassette.is_file():
            raise UserError(f"cassette: found {options.cassette}; wanted a recorded file to replay")
        return CassetteClient(Cassette(options.cassette))
    client = OpenAIClient(
        options.model,
        base_url=options.base_url,
        max_usd=options.max_usd,
        timeout=options.timeout,
        retries=options.retries,
        concurrency=options.concurrency,
        temperature=options.temperature,
        seed=options.seed,
        max_tokens=options.max_tokens,
        price=find_price(options.model, options.price),
    )
    return client if options.cassette is None else CassetteClient(Cassette(options.cassette), client)
