"""`layout.json`: how EmbodiedGen writes down a scene. Read tolerantly, checked strictly, written back without loss.

Names of nodes are free text; a node's files are named after it with spaces replaced by underscores. Positions are x, y, z, qx,
qy, qz, qw in a world with z up whose origin lies on the floor below the table.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from scenegen.errors import UserError
from scenegen.files import write_atomic

LAYOUT_FILE = "layout.json"
BACKGROUND, CONTEXT, MANIPULATED, DISTRACTOR = "background", "context", "manipulated_objs", "distractor_objs"
ROLES = (BACKGROUND, CONTEXT, MANIPULATED, DISTRACTOR, "others")
ON, INSIDE, IN, FLOOR = "ON", "INSIDE", "IN", "FLOOR"
EXTRA_KEY = "x_scenegen"
"""Where our own truth about a scene lies; EmbodiedGen's loader ignores it."""


class Layout(BaseModel):
    """The content of a layout.json. Unknown keys are kept; so is which of the optional ones were there."""

    model_config = ConfigDict(extra="allow")

    tree: dict[str, list[tuple[str, str]]]
    relation: dict[str, Any]
    objs_desc: dict[str, str] = {}
    objs_mapping: dict[str, str]
    assets: dict[str, str]
    quality: dict[str, Any] = {}
    position: dict[str, list[float]] = {}

    def of_role(self, role: str) -> list[str]:
        """The nodes of a role, in the order of the file."""
        return [node for node, found in self.objs_mapping.items() if found == role]

    @property
    def objects(self) -> list[str]:
        """What can move, in the order of the file."""
        return [node for node, role in self.objs_mapping.items() if role not in (BACKGROUND, CONTEXT)]

    @property
    def robot(self) -> str:
        return str(self.relation.get("robot", ""))

    @property
    def parents(self) -> dict[str, tuple[str, str]]:
        """child -> (parent, relation)."""
        return {child: (parent, relation) for parent, children in self.tree.items() for child, relation in children}

    @property
    def extra(self) -> Any:
        return (self.model_extra or {}).get(EXTRA_KEY)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", exclude_unset=True), indent=4, ensure_ascii=False, allow_nan=False) + "\n"


def file_name(node: str) -> str:
    """The stem of a node's files."""
    return node.replace(" ", "_")


def read_layout(path: Path) -> Layout:
    """Read a layout.json. Raises UserError naming file and key for whatever cannot be a scene."""
    if not path.is_file():
        raise UserError(f"{path}: not found; wanted the layout.json of an EmbodiedGen task")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; wanted JSON") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    except _NotFinite as error:
        raise UserError(f"{path}: found the number {error}; wanted finite numbers") from None
    try:
        layout = Layout.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(whole)"
        raise UserError(f"{path}: {key}: {first['msg']}; found {first['input']!r:.60}") from None
    try:
        _check(layout)
    except _Wrong as error:
        raise UserError(f"{path}: {error}") from None
    return layout


def write_layout(path: Path, layout: Layout) -> None:
    write_atomic(path, layout.to_json().encode())


class _NotFinite(Exception):
    pass


class _Wrong(Exception):
    pass


def _no_constant(name: str) -> NoReturn:
    raise _NotFinite(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NotFinite(text)
    return value


def _check(layout: Layout) -> None:
    _check_roles(layout)
    _check_tree(layout)
    for node, folder in layout.assets.items():
        if not _stays_inside(folder):
            raise _Wrong(f"assets.{node}: found {folder!r}; wanted a relative path that stays inside the task's folder")
    for node, numbers in layout.position.items():
        _check_position(node, numbers)


def _check_roles(layout: Layout) -> None:
    for node, role in layout.objs_mapping.items():
        if role not in ROLES:
            raise _Wrong(f"objs_mapping.{node}: found the role {role!r}; wanted one of {', '.join(ROLES)}")
        if not node.strip() or len(node) > 200 or "/" in node or "\\" in node or node in (".", "..") or not node.isprintable():
            raise _Wrong(f"objs_mapping: found the name {node!r:.60}; wanted a name of a file of at most 200 characters")
    for role in (BACKGROUND, CONTEXT):
        if len(found := layout.of_role(role)) != 1:
            raise _Wrong(f"objs_mapping: found {len(found)} nodes of the role {role}; wanted one")
    if not layout.of_role(MANIPULATED):
        raise _Wrong(f"objs_mapping: found no node of the role {MANIPULATED}; wanted at least one")
    files: dict[str, str] = {}
    for node in layout.objs_mapping:
        other = files.setdefault(file_name(node), node)
        if other != node:
            raise _Wrong(f"objs_mapping: {other!r} and {node!r} share the file name {file_name(node)}; wanted different names")


def _check_tree(layout: Layout) -> None:
    known = {*layout.objs_mapping, layout.robot}
    parents: dict[str, str] = {}
    for parent, children in layout.tree.items():
        for child, _ in children:
            if child in parents:
                raise _Wrong(f"tree.{parent}: {child!r} has another parent already, {parents[child]!r}; wanted one")
            parents[child] = parent
    for node in {*layout.tree, *parents}:
        if node not in known:
            raise _Wrong(f"tree: found the node {node!r}, which has no role in objs_mapping")
    for start in parents:
        seen, node = {start}, parents[start]
        while node in parents:
            if node in seen:
                raise _Wrong(f"tree: found a cycle through {node!r}; wanted a tree")
            seen.add(node)
            node = parents[node]
    root = layout.of_role(BACKGROUND)[0]
    loose = [node for node in layout.objs_mapping if node != root and node not in parents]
    if loose:
        raise _Wrong(f"tree: {loose[0]!r} has no parent; wanted every node but the background below another")


def _check_position(node: str, numbers: list[float]) -> None:
    if len(numbers) != 7:
        raise _Wrong(f"position.{node}: found {len(numbers)} numbers; wanted 7: x, y, z, qx, qy, qz, qw")
    if not all(math.isfinite(number) for number in numbers):
        raise _Wrong(f"position.{node}: found numbers that are not finite")
    norm = math.sqrt(sum(number * number for number in numbers[3:]))
    if abs(norm - 1) > 0.01:
        raise _Wrong(f"position.{node}: found a quaternion of length {norm:.3f}; wanted 1")


def _stays_inside(path: str) -> bool:
    parts = path.split("/")
    return bool(path) and not path.startswith("/") and "\\" not in path and ":" not in parts[0] and ".." not in parts
