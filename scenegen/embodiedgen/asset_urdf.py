"""The URDF of an EmbodiedGen asset: one link, meshes with y up that its origins turn upright, what a language model said of it.

A file keeps its XML tree, so that what nobody here understands is written back as it was read.
"""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from scipy.spatial.transform import Rotation

from scenegen.embodiedgen.frames import UPRIGHT
from scenegen.errors import UserError
from scenegen.schema import PhysicsSpec

FRICTION = (0.7, 0.6)
"""Static and dynamic, of an asset that does not say."""

UPRIGHT_SINCE = (0, 1, 5)
"""The version from which on origins stand the meshes upright; before, the loader did."""

VERSION = "v0.1.5"
"""What an asset written here claims to be: upright by its origins."""

_MOVING = ("prismatic", "revolute", "continuous", "planar", "floating")
_LARGEST = 4 << 20


@dataclass(frozen=True)
class Mesh:
    """A mesh of a link: its file, relative to the URDF, and how it is set into the link: x -> turn(scale x) + offset [m]."""

    file: str
    scale: float
    turn: Rotation
    offset: tuple[float, float, float]

    @property
    def identity(self) -> bool:
        return self.turn.magnitude() < 1e-6 and not any(self.offset)


@dataclass(frozen=True)
class AssetUrdf:
    """What the URDF says; None for what it leaves open. `legacy`: its meshes stand upright only after another quarter turn
    about x, which the loader of its time made after turning the object (about y)."""

    path: Path
    tree: ET.Element
    name: str
    visual: Mesh
    collision: Mesh | None
    mass: float | None
    friction: tuple[float, float]

    @property
    def info(self) -> dict[str, str]:
        """The entries of `extra_info`: category, description, version, gs_model, ..."""
        found = self.tree.find("./link/extra_info")
        return {} if found is None else {item.tag: (item.text or "").strip() for item in found}

    @property
    def legacy(self) -> bool:
        upright = not (self.visual.identity and (self.collision is None or self.collision.identity))
        return not upright and parse_version(self.info.get("version", "")) < UPRIGHT_SINCE

    @property
    def mesh_to_link(self) -> Rotation:
        """The turn from the visual mesh to the upright link."""
        return UPRIGHT * self.visual.turn if self.legacy else self.visual.turn

    @property
    def files(self) -> list[str]:
        """Files beside the URDF that its notes name (splats, affordances), in their order, each once."""
        notes = [item for parent in ("./link/extra_info", "./custom_data") for item in self.tree.findall(parent)]
        texts = [(item.text or "").strip() for note in notes for item in note.iter()]
        return list(dict.fromkeys(t for t in texts if t and _inside(t) and (self.path.parent / t).is_file()))

    def text(self) -> str:
        return to_text(self.tree)


def read_urdf(path: Path) -> AssetUrdf:
    """Read an asset's URDF. Raises UserError naming file and element for what is torn, dangerous or has moving joints."""
    return parse_urdf(_read(path), path)


def parse_urdf(text: str, path: Path) -> AssetUrdf:
    """As `read_urdf`, of a text whose file names are relative to the folder of `path`."""
    if re.search(r"<!\s*(doctype|entity)", text, re.IGNORECASE):
        raise UserError(f"{path}: found a DOCTYPE; wanted plain XML without entities")
    try:
        tree = ET.fromstring(text)
    except ET.ParseError as error:
        raise UserError(f"{path}: not valid XML: {error}") from None
    if tree.tag != "robot":
        raise UserError(f"{path}: found the root element {tree.tag!r}; wanted robot")
    for joint in tree.iter("joint"):
        if joint.get("type") in _MOVING:
            raise UserError(f"{path}: joint {joint.get('name')!r}: found type {joint.get('type')}; wanted a rigid object")
    links = tree.findall("link")
    if len(links) != 1:
        raise UserError(f"{path}: link: found {len(links)}; wanted one")
    link = links[0]
    visuals, collisions = link.findall("visual"), link.findall("collision")
    if len(visuals) != 1 or len(collisions) > 1:
        raise UserError(f"{path}: found {len(visuals)} visual and {len(collisions)} collision elements; wanted one of each")
    collision = _mesh(collisions[0], path) if collisions and collisions[0].find("geometry/mesh") is not None else None
    mass = link.find("inertial/mass")
    return AssetUrdf(
        path=path,
        tree=tree,
        name=link.get("name") or tree.get("name") or path.stem,
        visual=_mesh(visuals[0], path),
        collision=collision,
        mass=None if mass is None else _positive(mass.get("value", ""), path, "inertial/mass"),
        friction=_friction(link, path),
    )


def find_urdf(folder: Path) -> Path:
    """The one URDF of an asset's folder or of the `result` in it. Raises UserError when there is none or more."""
    for place in (folder, folder / "result"):
        found = sorted(place.glob("*.urdf"))
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{place}: found {len(found)} URDF files; wanted one")
    raise UserError(f"{folder}: found no URDF file; wanted one, here or in result/")


def new_tree(name: str, info: dict[str, str], quality: dict[str, str]) -> ET.Element:
    """The tree of an asset made elsewhere; `set_body` and `set_meshes` fill it."""
    tree = ET.Element("robot", name=name)
    link = ET.SubElement(tree, "link", name=name)
    for part in ("visual", "collision", "inertial"):
        element = ET.SubElement(link, part)
        ET.SubElement(element, "origin", xyz="0 0 0", rpy="0 0 0")
    _entries(ET.SubElement(link, "extra_info"), info)
    if quality:
        _entries(ET.SubElement(ET.SubElement(tree, "custom_data"), "quality"), quality)
    return tree


def set_meshes(tree: ET.Element, visual: str, collision: str, legacy: bool) -> None:
    """Names the mesh files, y up in metres; a legacy asset's origins stay identities."""
    for part, file in (("visual", visual), ("collision", collision)):
        element = _at(tree, f"link/{part}")
        origin = _at(element, "origin")
        origin.set("xyz", "0.0 0.0 0.0")
        origin.set("rpy", "0.0 0.0 0.0" if legacy else "1.5708 0.0 0.0")
        mesh = _at(element, "geometry/mesh")
        mesh.set("filename", file)
        mesh.set("scale", "1.0 1.0 1.0")


def set_body(tree: ET.Element, mass: float, friction: tuple[float, float]) -> None:
    _at(tree, "link/inertial/mass").set("value", f"{mass:.9g}")
    for tag, value in zip(("mu1", "mu2"), friction, strict=True):
        _at(tree, f"link/collision/gazebo/{tag}").text = f"{value:g}"


def set_inertia(tree: ET.Element, physics: PhysicsSpec, link_from_object: Rotation, offset: np.ndarray) -> None:
    """Writes centre of mass [m] and inertia [kg m2] of an object whose frame the link turns and then moves by `offset`."""
    xx, yy, zz, xy, xz, yz = physics.inertia
    turn = link_from_object.as_matrix()
    inertia = turn @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ turn.T
    com = turn @ np.asarray(physics.com_m) + offset
    origin = _at(tree, "link/inertial/origin")
    origin.set("xyz", " ".join(f"{v:.6g}" for v in com + 0.0))
    origin.set("rpy", "0 0 0")
    element = _at(tree, "link/inertial/inertia")
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        element.set(f"i{'xyz'[i]}{'xyz'[j]}", f"{inertia[i, j] + 0.0:.6g}")


def to_text(tree: ET.Element) -> str:
    copy = deepcopy(tree)
    ET.indent(copy)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(copy, encoding="unicode") + "\n"


def parse_version(text: str) -> tuple[int, int, int]:
    """(0, 1, 5) of "v0.1.5"; a version in the making ("v0.1.5-pre") counts as the one before, no version as the first."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?(.*)", text.strip())
    if not found:
        return (0, 0, 0)
    major, minor, patch = int(found[1]), int(found[2]), int(found[3] or 0)
    return (major, minor, patch - 1) if found[4] else (major, minor, patch)


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: not found; wanted the URDF of an asset")
    if path.stat().st_size > _LARGEST:
        raise UserError(f"{path}: found {path.stat().st_size} bytes; wanted a URDF of at most {_LARGEST}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; wanted XML") from None


def _mesh(element: ET.Element, path: Path) -> Mesh:
    mesh, origin, tag = element.find("geometry/mesh"), element.find("origin"), element.tag
    if mesh is None:
        raise UserError(f"{path}: {tag}: found no mesh; wanted geometry/mesh")
    file = mesh.get("filename", "")
    if not _inside(file):
        raise UserError(f"{path}: {tag}/geometry/mesh: found filename {file!r}; wanted a relative path inside the asset's folder")
    scales = _numbers(mesh.get("scale", "1 1 1"), path, f"{tag}/geometry/mesh scale")
    if not (scales[0] > 0 and max(scales) - min(scales) <= 1e-9 * max(scales)):
        raise UserError(f"{path}: {tag}/geometry/mesh: found scale {mesh.get('scale')!r}; wanted one factor for all axes")
    xyz, rpy = ("0 0 0", "0 0 0") if origin is None else (origin.get("xyz", "0 0 0"), origin.get("rpy", "0 0 0"))
    angles = _numbers(rpy, path, f"{tag}/origin rpy")
    return Mesh(file, scales[0], _turn(angles), _numbers(xyz, path, f"{tag}/origin xyz"))


def _turn(rpy: tuple[float, float, float]) -> Rotation:
    """Of roll, pitch, yaw. Quarter turns are written as 1.5708 and meant exactly."""
    quarters = [round(angle / (np.pi / 2)) for angle in rpy]
    exact = [q * np.pi / 2 if abs(a - q * np.pi / 2) < 1e-4 else a for a, q in zip(rpy, quarters, strict=True)]
    return Rotation.from_euler("xyz", exact)


def _friction(link: ET.Element, path: Path) -> tuple[float, float]:
    values = []
    for tag, default in zip(("mu1", "mu2"), FRICTION, strict=True):
        element = link.find(f"collision/gazebo/{tag}")
        values.append(default if element is None else _positive(element.text or "", path, f"collision/gazebo/{tag}"))
    return values[0], values[1]


def _numbers(text: str, path: Path, where: str) -> tuple[float, float, float]:
    try:
        values = tuple(float(part) for part in text.split())
    except ValueError:
        values = ()
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise UserError(f"{path}: {where}: found {text!r:.60}; wanted three numbers")
    return values


def _positive(text: str, path: Path, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{path}: {where}: found {text!r:.60}; wanted a positive number")
    return value


def _inside(path: str) -> bool:
    return bool(path) and not path.startswith(("/", "~")) and not re.search(r"[\\:\n]", path) and ".." not in path.split("/")


def _entries(parent: ET.Element, values: dict[str, str]) -> None:
    for tag, text in values.items():
        ET.SubElement(parent, tag).text = text


def _at(element: ET.Element, path: str) -> ET.Element:
    """The element at a path below, made where it is missing."""
    for tag in path.split("/"):
        found = element.find(tag)
        element = ET.SubElement(element, tag) if found is None else found
    return element
