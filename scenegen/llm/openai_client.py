"""Questions to OpenAI, or to any server that speaks its chat completions."""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from scenegen.errors import UserError
from scenegen.llm.base import Answer, LLMError, T
from scenegen.llm.cost import Call, Ledger, Price, find_price, input_bound
from scenegen.llm.question import ModelSettings, question_sha, strict_schema

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

_FEATURES = {
    "max_completion_tokens": r"max_completion_tokens",
    "temperature": r"temperature",
    "seed": r"\bseed\b",
    "json_schema": r"response.?format|json.?schema|structured.?output|strict",
}
"""What a server may not know, and the words by which it says so. Without json_schema it gets JSON mode and reads the schema in
the prompt; without max_completion_tokens it gets max_tokens."""

_JSON_MODE = "\n\nAnswer with one JSON object that follows this JSON schema, and with nothing else:\n"


class OpenAIClient:
    """An LLMClient over the `openai` package. The key comes from OPENAI_API_KEY, the server from `base_url` or OPENAI_BASE_URL;
    a server of one's own needs no key. `timeout` [s] is for one try of `retries` + 1; the waits between tries grow from half a
    second, or are what the server asks for. `concurrency` calls at most run at a time. A price is found for known models.

    `ledger` holds what was spent. Raises UserError when the package, the key or the price for a limit is missing, and from
    `complete` when the server turns the key or the model down."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        max_usd: float | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        concurrency: int = 8,
        temperature: float | None = 1.0,
        seed: int | None = 0,
        max_tokens: int = 4096,
        price: Price | None = None,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise UserError("llm: the package openai is not installed; wanted pip install 'genvla[llm]'") from error
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and base_url is None:
            raise UserError("OPENAI_API_KEY: not set; wanted a key of OpenAI, or a base_url (OPENAI_BASE_URL) of another server")
        if not model or concurrency < 1 or retries < 0 or max_tokens < 1 or not timeout > 0:
            raise UserError(
                f"llm: found model {model!r}, concurrency {concurrency}, retries {retries}, max_tokens {max_tokens}, timeout "
                f"{timeout:g}; wanted a name, at least 1, at least 0, at least 1, more than 0 s"
            )
        self.settings = ModelSettings(model, temperature, seed, max_tokens)
        self.ledger = Ledger(price or find_price(model), max_usd, model)
        self._secret, self._timeout = key, timeout
        self._slots = threading.BoundedSemaphore(concurrency)
        self._without: frozenset[str] = frozenset()
        self._openai = openai
        self._client = openai.OpenAI(api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=retries)

    def complete(self, purpose: str, system: str, user: str, schema: type[T], images: Sequence[bytes] = ()) -> Answer[T]:
        """As LLMClient says. An answer that does not fit its schema is sent back once with what is wrong."""
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": system},
            {"role": "user", "content": _content(user, images)},
        ]
        texts, usd, tokens = [system, user, json.dumps(strict_schema(schema))], 0.0, (0, 0)
        problems = ""
        for _ in range(2):
            with (
                self._slots,
                self.ledger.call(purpose, input_bound(texts, images, self.ledger.price), self.settings.max_tokens) as call,
            ):
                text = self._ask(purpose, messages, schema, call)
            assert call.tokens is not None
            usd += call.usd
            tokens = (tokens[0] + call.tokens[0], tokens[1] + call.tokens[1])
            try:
                value = schema.model_validate_json(text)
            except ValidationError as error:
                problems = describe_errors(error)
            else:
                sha = question_sha(self.settings, system, user, schema, images)
                return Answer(value, self.settings.model, sha, usd, tokens)
            repair = f"This answer does not fit the schema: {problems}. Give the whole answer again, corrected."
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": repair}]
            texts += [text, repair]
        raise LLMError(f"{purpose}: the answer did not fit its schema, twice: {problems}")

    def close(self) -> None:
        self._client.close()

    def _ask(self, purpose: str, messages: list[dict[str, Any]], schema: type[BaseModel], call: Call) -> str:
        """The text of one answer; what it took goes into `call`."""
        completion = self._request(purpose, messages, schema)
        usage = getattr(completion, "usage", None)
        call.tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else call.bound
        choices = getattr(completion, "choices", None)
        if not choices:
            raise LLMError(f"{purpose}: the server answered something that is no chat completion; is its base_url right?")
        message, reason = choices[0].message, choices[0].finish_reason
        if getattr(message, "refusal", None):
            raise LLMError(f"{purpose}: the model refused: {self._one_line(message.refusal)}")
        if reason == "length":
            raise LLMError(f"{purpose}: the answer was cut off at {self.settings.max_tokens} tokens; wanted a larger max_tokens")
        if reason == "content_filter":
            raise LLMError(f"{purpose}: the server's content filter stopped the answer")
        if not message.content or not message.content.strip():
            raise LLMError(f"{purpose}: the answer is empty")
        text: str = message.content
        # Without enforced schemas models like to put fences or thoughts around the object.
        return text[text.find("{") : text.rfind("}") + 1] or text if "json_schema" in self._without else text

    def _request(self, purpose: str, messages: list[dict[str, Any]], schema: type[BaseModel]) -> ChatCompletion:
        """One call, made simpler for as long as the server turns it down for a feature that it does not know. What it did not
        know is remembered once a simpler call went through."""
        openai, without = self._openai, self._without
        while True:
            try:
                completion = self._client.chat.completions.create(**self._body(messages, schema, without))
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                unknown = _unknown_feature(str(error), without)
                if unknown is None:
                    raise LLMError(f"{purpose}: the server turned the question down: {self._one_line(error.message)}") from None
                without = without | {unknown}
            except openai.OpenAIError as error:
                # Not chained: what the package says may quote the key, and a traceback would show it.
                raise self._explained(purpose, error) from None
            else:
                self._without |= without
                return completion

    def _body(self, messages: list[dict[str, Any]], schema: type[BaseModel], without: frozenset[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.settings.model, "messages": messages}
        body["max_tokens" if "max_completion_tokens" in without else "max_completion_tokens"] = self.settings.max_tokens
        for name in ("temperature", "seed"):
            if name not in without and getattr(self.settings, name) is not None:
                body[name] = getattr(self.settings, name)
        strict = strict_schema(schema)
        if "json_schema" in without:
            body["response_format"] = {"type": "json_object"}
            system = messages[0]["content"] + _JSON_MODE + json.dumps(strict)
            body["messages"] = [{"role": "system", "content": system}, *messages[1:]]
        else:
            name = re.sub(r"[^a-zA-Z0-9_-]", "_", schema.__name__)[:64]
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": strict}}
        return body

    def _explained(self, purpose: str, error: Exception) -> Exception:
        """The package's error as one of ours, in one line and without the key."""
        openai, model = self._openai, self.settings.model
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return UserError(f"OPENAI_API_KEY: the server answered {error.status_code}; wanted a key that may use {model!r}")
        if isinstance(error, openai.NotFoundError):
            return UserError(f"llm_model: the server does not know {model!r} (404); wanted one that it serves")
        if isinstance(error, openai.RateLimitError) and error.code == "insufficient_quota":
            return UserError("OPENAI_API_KEY: nothing is left to spend on this account (429); wanted one with credit")
        if isinstance(error, openai.APITimeoutError):
            return LLMError(f"{purpose}: no answer within {self._timeout:g} s (tries: {self._client.max_retries + 1})")
        if isinstance(error, openai.APIConnectionError):
            return LLMError(f"{purpose}: the server cannot be reached (tries: {self._client.max_retries + 1})")
        if isinstance(error, openai.APIStatusError):
            return LLMError(f"{purpose}: the server answered {error.status_code}: {self._one_line(error.message)}")
        return LLMError(f"{purpose}: {self._one_line(str(error))}")

    def _one_line(self, text: str) -> str:
        line = " ".join(text.split())
        line = line.replace(self._secret, "***") if self._secret else line
        return re.sub(r"\bsk-[\w*-]{4,}", "***", line)[:200]


def describe_errors(error: ValidationError) -> str:
    """What is wrong with an answer, at most five fields of it, in one short line."""
    details = error.errors(include_url=False, include_context=False)
    shown = [(".".join(map(str, detail["loc"])) or "answer", " ".join(detail["msg"].split())[:120]) for detail in details[:5]]
    more = [f"and {len(details) - 5} more"] if len(details) > 5 else []
    return "; ".join([*(f"{field}: {message}" for field, message in shown), *more])


def _unknown_feature(message: str, without: frozenset[str]) -> str | None:
    """The feature that a server's complaint is about; JSON mode is tried whatever a bad request was about."""
    named = [name for name, words in _FEATURES.items() if name not in without and re.search(words, message, re.IGNORECASE)]
    return named[0] if named else "json_schema" if "json_schema" not in without else None


def _content(user: str, images: Sequence[bytes]) -> str | list[dict[str, Any]]:
    if not images:
        return user
    urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
    return [{"type": "text", "text": user}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
