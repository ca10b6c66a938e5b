"""A small server that speaks OpenAI's chat completions: it answers what a test scripts, then as a sensible model would."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scenegen.designer.rules import design_scene, parse_task
from scenegen.designer.tasks import generate_tasks
from scenegen.engines.procedural.catalog import FULL, Catalog
from scenegen.errors import UserError
from scenegen.schema import NodeSpec, Role
from scenegen.seeds import derive_seed


@dataclass(frozen=True)
class Reply:
    """One scripted answer. `content` None: as the sensible model would answer; `raw` is sent in place of a completion."""

    content: str | None = None
    status: int = 200
    finish: str = "stop"
    refusal: str | None = None
    error: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    raw: bytes | None = None
    usage: tuple[int, int] | None = (100, 20)


class ChatServer:
    """Serves on `url` within a `with`. `replies` come first, one a request, `last` ever after. It knows json_schema unless told
    not to. `requests` are the bodies that came, `keys` the authorizations, `most_at_once` how many were served together."""

    def __init__(
        self,
        replies: Sequence[Reply] = (),
        last: Reply | None = None,
        json_schema: bool = True,
        refused: Sequence[str] = (),
        catalog: Catalog = FULL,
    ) -> None:
        self.replies, self.last = list(replies), last or Reply()
        self.json_schema, self.refused, self.catalog = json_schema, refused, catalog
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def answer(self, request: dict[str, Any]) -> Reply:
        for name in self.refused:
            if name in request:
                return Reply(status=400, error={"message": f"Unsupported parameter: '{name}'", "param": name})
        if request["response_format"]["type"] == "json_schema" and not self.json_schema:
            return Reply(status=400, error={"message": "response_format json_schema is not supported by this model"})
        with self.lock:
            return self.replies.pop(0) if self.replies else self.last


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append(request)
                server.keys.append(self.headers.get("Authorization"))
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            reply = server.answer(request)
            time.sleep(reply.delay)
            with server.lock:
                server.at_once -= 1
            try:
                self._send(reply, request)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _send(self, reply: Reply, request: dict[str, Any]) -> None:
            if reply.raw is not None:
                body = reply.raw
            elif reply.status != 200:
                body = json.dumps({"error": {"message": f"status {reply.status}", **reply.error}}).encode()
            else:
                body = json.dumps(_completion(reply, request, server.catalog)).encode()
            self.send_response(reply.status)
            headers = {"Content-Type": "text/html" if reply.raw is not None else "application/json", **reply.headers}
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _completion(reply: Reply, request: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    content = reply.content
    if content is None and reply.refusal is None:
        content = json.dumps(sensible(request, catalog))
    message = {"role": "assistant", "content": content, "refusal": reply.refusal}
    completion: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
    }
    if reply.usage:
        tokens_in, tokens_out = reply.usage
        completion["usage"] = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }
    return completion


def sensible(request: dict[str, Any], catalog: Catalog) -> Any:
    """What a model that knows its trade answers: scenes and tasks by the rules, anything else the first thing that its schema
    allows, in favour of what is asked about."""
    schema = _schema(request)
    user = request["messages"][1]["content"]
    text = user if isinstance(user, str) else user[0]["text"]
    properties = schema.get("properties", {})
    if "impossible" in properties:
        return _draft(text, schema, catalog)
    if "tasks" in properties and "Propose" in text:
        return _proposals(text, catalog)
    return permissive(schema, schema)


def _schema(request: dict[str, Any]) -> dict[str, Any]:
    if request["response_format"]["type"] == "json_schema":
        schema: dict[str, Any] = request["response_format"]["json_schema"]["schema"]
        return schema
    system = request["messages"][0]["content"]
    parsed: dict[str, Any] = json.loads(system[system.index('\n{"type"') + 1 :])
    return parsed


def _draft(text: str, schema: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    task = json.loads(_found(r"^Task: (.*)$", text))
    seed, count = int(_found(r"^Variation: (\d+)$", text)), int(_found(r"^Distractors: (?:exactly )?(\d+)", text))
    nothing = {"impossible": "", "relation": "on", "target": None, "destination": None, "distractors": []}
    try:
        graph = design_scene(task, seed, (count, count), catalog)
    except UserError as error:
        return {**nothing, "impossible": str(error)}
    free = "longest_mm" in schema["$defs"]["Thing"]["properties"]
    things = [_thing(node, free, catalog) for node in graph.objects]
    return {
        **nothing,
        "relation": str(graph.goal.predicate),
        "target": things[0],
        "destination": things[1],
        "distractors": things[2:],
    }


def _thing(node: NodeSpec, free: bool, catalog: Catalog) -> dict[str, Any]:
    thing = {
        "name": node.name if node.role is not Role.DISTRACTOR else f"{node.color} {node.category}",
        "category": node.category,
        "color": node.color,
        "material": node.material,
        "size": node.size or "medium",
        "start": "on",
        "start_at": "table",
    }
    if free:
        family = catalog.families[node.category]
        longest = round(1000 * family.span)
        holds = "both" if len(family.relations) == 2 else str(family.relations[0]) if family.relations else "nothing"
        thing |= {
            "description": node.description,
            "narrowest_mm": 40 if family.graspable and longest > 40 else min(longest, 100),
            "longest_mm": longest,
            "holds": holds,
        }
    return thing


def _proposals(text: str, catalog: Catalog) -> dict[str, Any]:
    count, seed = int(_found(r"^Propose (\d+) tasks", text)), int(_found(r"^Variation: (\d+), round", text))
    known = text.count("\n- ")
    tasks = []
    for sentence in generate_tasks(count, derive_seed(seed, known), catalog):
        task = parse_task(sentence, catalog)
        target, destination = task.subject.family.category, task.object.family.category
        tasks.append({"sentence": sentence, "target": target, "relation": str(task.relation), "destination": destination})
    return {"tasks": tasks}


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None, f"{pattern} is not in the question"
    return match[1]


def permissive(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """An answer of a JSON schema: true, the first of an enum, null where it may be, no more elements than none."""
    if "$ref" in schema:
        return permissive(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        options = schema["anyOf"]
        return None if {"type": "null"} in options else permissive(options[0], root)
    if schema.get("type") == "object":
        return {name: permissive(value, root) for name, value in schema["properties"].items()}
    return {"boolean": True, "string": "looks right", "integer": 1, "number": 1.0, "array": [], "null": None}[schema["type"]]
