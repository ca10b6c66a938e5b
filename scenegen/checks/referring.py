"""Whether the words for target and destination fit anything else on the table."""

from __future__ import annotations

from scenegen.engines.procedural.catalog import FULL
from scenegen.palette import PALETTE, plainly_different
from scenegen.schema import NodeSpec, Role, SceneGraph


def mistaken(graph: SceneGraph) -> list[str]:
    """A reason for each thing that could be taken for the target or the destination: of the same kind, and not plainly of another
    colour than the words name."""
    meant = [graph.node(graph.goal.subject), graph.node(graph.goal.object)]
    reasons = []
    for node in meant:
        for other in graph.objects:
            if other.id != node.id and _same_kind(node, other) and not _told_apart(node, other):
                reasons.append(f"{node.name!r} could mean the {node.role} or the {_words(other)}")
    return reasons


def _same_kind(node: NodeSpec, other: NodeSpec) -> bool:
    """Of one category, or called by a word that is also used for the other."""
    return bool(_kinds(node) & _kinds(other))


def _kinds(node: NodeSpec) -> set[str]:
    """The category, every family that is called by the noun of its name, and that noun."""
    words = node.name.lower().split()
    tails = [" ".join(words[start:]) for start in range(len(words))]
    noun = next((tail for tail in tails if any(tail in family.nouns for family in FULL.families.values())), None)
    known = FULL.nouns.get(node.category)
    kinds = {known.category if known is not None else node.category}
    if noun is not None:
        kinds |= {family.category for family in FULL.families.values() if noun in family.nouns}
    return kinds


def _told_apart(node: NodeSpec, other: NodeSpec) -> bool:
    """By a colour that the words for it name."""
    spoken = node.color is not None and node.color in node.name.lower()
    if not spoken or node.color not in PALETTE or other.color not in PALETTE:
        return False
    return plainly_different(node.color, other.color)


def _words(node: NodeSpec) -> str:
    return f"{node.role} {node.name!r}" if node.role is Role.DISTRACTOR else str(node.role)
