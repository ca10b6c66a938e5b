"""`scenegen library`: made objects, kept for other scenes."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from scenegen.engines.library import Library
from scenegen.loader import load_scene_set


def add(library: Path, source: Path, licence: str = "") -> int:
    """Put the objects of a set's scenes into a library.

    Args:
        library: Folder of the library; made when it is not there.
        source: Folder of a set.
        licence: Kept with each object.
    """
    store = Library(library)
    ids = {library_id for scene in load_scene_set(source) for library_id in store.add_scene(scene, licence)}
    print(f"{library}: {len(ids)} objects put in, {store.stats()['objects']} in all")
    return 0


def search(library: Path, text: str = "", category: str | None = None, color: str | None = None, limit: int = 20) -> int:
    """List the objects that fit.

    Args:
        library: Folder of the library.
        text: Words, each the beginning of a word in category, name, description, colour or material.
        category: Only this kind.
        color: Only this colour.
        limit: At most so many.
    """
    table = Table("id", "category", "name", "colour", "material", "engine", "used", box=None)
    for row in Library(library).search(text, category=category, color=color, limit=limit):
        table.add_row(row.id[:12], row.category, row.name, row.color, row.material, row.engine, str(row.times_used))
    Console().print(table)
    return 0


def stats(library: Path) -> int:
    """Count what a library holds.

    Args:
        library: Folder of the library.
    """
    for name, value in Library(library).stats().items():
        shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else value
        print(f"{name}: {shown}")
    return 0


def verify(library: Path, rebuild: bool = False) -> int:
    """Read every object of a library and compare it with its id; the index with the objects.

    Args:
        library: Folder of the library.
        rebuild: Make the index anew first, and clear what writers that died left behind.
    """
    store = Library(library)
    if rebuild:
        store.rebuild()
    found = store.verify()
    for library_id, reason in found.damaged.items():
        print(f"{library_id[:12]}: {reason}")
    for name in ("dangling", "missing", "leftovers"):
        for entry in getattr(found, name):
            print(f"{name}: {entry}")
    print(f"{library}: {found.objects} objects, {'as they should be' if found.ok else 'not as they should be'}")
    return 0 if found.ok else 1


def prune(library: Path) -> int:
    """Remove the objects that no scene has taken.

    Args:
        library: Folder of the library.
    """
    print(f"{library}: {len(Library(library).prune())} objects removed")
    return 0
