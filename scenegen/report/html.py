"""HTML by construction: what is not markup already is escaped, so that no free text can become markup."""

from __future__ import annotations

from html import escape

VOID = frozenset({"img", "input", "meta", "br", "hr"})


class Html(str):
    """Text that is markup."""


def html(child: object) -> Html:
    """Markup as it is, sequences joined, None as nothing, anything else escaped."""
    if child is None:
        return Html()
    if isinstance(child, Html):
        return child
    if isinstance(child, list | tuple):
        return Html("".join(html(part) for part in child))
    return Html(escape(str(child)))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. In attribute names a last underscore is dropped and others are hyphens: class_, data_split. None and False
    leave an attribute out, True gives it no value."""
    text = ""
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            text += f" {key}"
        elif value is not None and value is not False:
            text += f' {key}="{escape(str(value))}"'
    if name in VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{html(children)}</{name}>")
