"""A question as data: which model is asked and how, the JSON schema of its answer, and the digest that names the whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from pydantic import BaseModel

_KEPT = ("type", "enum", "description", "required", "additionalProperties")
"""What all servers that enforce schemas understand; lengths and ranges are left to our own validation of the answer."""

_HANDLED = (*_KEPT, "$defs", "$ref", "allOf", "anyOf", "const", "items", "properties")
_DROPPED = (
    *("default", "examples", "format", "title", "pattern", "minLength", "maxLength", "minItems", "maxItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
)


@dataclass(frozen=True)
class ModelSettings:
    """A model and how it is sampled. `max_tokens` bounds one answer, thinking included; None leaves a value to the server."""

    model: str
    temperature: float | None = 1.0
    seed: int | None = 0
    max_tokens: int = 4096


def strict_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a pydantic model as strict structured outputs want it: every field required, no further ones.
    Raises TypeError for a model that cannot be said so (mappings, tuples, tagged unions)."""
    schema = model.model_json_schema()
    return _strict(schema, schema.get("$defs", {}))


def _strict(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    unknown = set(node) - set(_HANDLED) - set(_DROPPED)
    if unknown or node.get("additionalProperties") not in (None, False):
        raise TypeError(f"an answer cannot use {', '.join(sorted(unknown)) or 'additionalProperties'} in its schema")
    if "$ref" in node and set(node) & {"description"}:  # A reference stands alone, so one with a description is written out.
        return _strict({**definitions[node["$ref"].rsplit("/", 1)[1]], "description": node["description"]}, definitions)
    if "$ref" in node:
        return {"$ref": node["$ref"]}
    if "allOf" in node:
        if len(node["allOf"]) != 1:
            raise TypeError("an answer cannot use allOf of several schemas")
        return _strict({**{k: v for k, v in node.items() if k != "allOf"}, **node["allOf"][0]}, definitions)
    strict = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        strict["enum"] = [node["const"]]
    if "anyOf" in node:
        strict["anyOf"] = [_strict(option, definitions) for option in node["anyOf"]]
    if "items" in node:
        strict["items"] = _strict(node["items"], definitions)
    if node.get("type") == "object":
        properties = node.get("properties", {})
        strict["properties"] = {name: _strict(value, definitions) for name, value in properties.items()}
        strict["required"], strict["additionalProperties"] = list(properties), False
    if "$defs" in node:
        strict["$defs"] = {name: _strict(value, definitions) for name, value in node["$defs"].items()}
    return strict


def question_sha(settings: ModelSettings, system: str, user: str, schema: type[BaseModel], images: Sequence[bytes] = ()) -> str:
    """SHA-256 of all that decides an answer: model, sampling, texts, images, schema of the answer."""
    parts = {
        "settings": asdict(settings),
        "system": system,
        "user": user,
        "schema": strict_schema(schema),
        "images": [sha256(image).hexdigest() for image in images],
    }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
