"""layout.json, asset URDFs, turns, names and splats: read tolerantly, refused in one line, written back as they came."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import sapien
from hypothesis import given, settings
from hypothesis import strategies as st

from scenegen.embodiedgen.asset_urdf import parse_urdf, parse_version, read_urdf
from scenegen.embodiedgen.frames import UPRIGHT, Frame, about_z, from_wxyz, from_xyzw, to_wxyz, to_xyzw, yaw_of
from scenegen.embodiedgen.layout_file import Layout, file_name, read_layout, write_layout
from scenegen.embodiedgen.roles import cast_roles
from scenegen.embodiedgen.splat import sample_surface, splat_ply
from scenegen.errors import UserError
from scenegen.schema import Relation
from tests.scenegen.embodiedgen.folders import ASSETS, layout, urdf

# ---- layout.json


def test_a_layout_loses_nothing(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(layout()))
    write_layout(tmp_path / "out.json", read_layout(tmp_path / "in.json"))
    assert json.loads((tmp_path / "out.json").read_text()) == layout()
    bare = {key: value for key, value in layout().items() if key not in ("objs_desc", "quality", "position")}
    (tmp_path / "in.json").write_text(json.dumps(bare))
    write_layout(tmp_path / "out.json", read_layout(tmp_path / "in.json"))
    assert json.loads((tmp_path / "out.json").read_text()) == bare


def without(key: str, *path: str) -> dict:
    return changed(lambda content: _at(content, path).pop(key))


def changed(change) -> dict:
    content = copy.deepcopy(layout())
    change(content)
    return content


def _at(content: dict, path: tuple[str, ...]) -> dict:
    for key in path:
        content = content[key]
    return content


WRONG = {
    "tree: Field required": without("tree"),
    "objs_mapping: found 0 nodes of the role background; wanted one": changed(
        lambda c: c["objs_mapping"].update({"cozy kitchen": "others"})
    ),
    "objs_mapping: found no node of the role manipulated_objs": changed(
        lambda c: c["objs_mapping"].update({"rubik's cube": "distractor_objs"})
    ),
    "objs_mapping.mug: found the role 'hero'": changed(lambda c: c["objs_mapping"].update(mug="hero")),
    "tree.mug: 'mug' has another parent already": changed(lambda c: c["tree"].update(mug=[["mug", "ON"]])),
    "tree: found a cycle through": changed(
        lambda c: c["tree"].update(
            {"wooden table": [["grey bowl", "ON"]], "mug": [["rubik's cube", "ON"]], "rubik's cube": [["mug", "ON"]]}
        )
    ),
    "tree: found the node 'cat', which has no role": changed(lambda c: c["tree"]["wooden table"].append(["cat", "ON"])),
    "tree: 'mug' has no parent": changed(lambda c: c["tree"]["wooden table"].pop()),
    "assets.mug: found '../mug'": changed(lambda c: c["assets"].update(mug="../mug")),
    "assets.mug: found '/etc'": changed(lambda c: c["assets"].update(mug="/etc")),
    "assets.mug: found 'c:/mug'": changed(lambda c: c["assets"].update(mug="c:/mug")),
    "position.mug: found 6 numbers; wanted 7": changed(lambda c: c["position"]["mug"].pop()),
    "found the number NaN": changed(lambda c: c["position"].update(mug=[float("nan")] * 7)),
    "position.mug: found a quaternion of length 0.000": changed(lambda c: c["position"].update(mug=[0.0] * 7)),
    "position.mug.0: Input should be a valid number": changed(lambda c: c["position"].update(mug=["a"] * 7)),
    "share the file name": changed(lambda c: c["objs_mapping"].update({"rubik's_cube": "others"})),
    "found the name '../mug'": changed(lambda c: c["objs_mapping"].update({"../mug": "others"})),
    "(whole): Input should be a valid dictionary": [1],
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_layout_is_refused_in_one_line(message, tmp_path):
    path = tmp_path / "layout.json"
    path.write_text(json.dumps(WRONG[message]))
    with pytest.raises(UserError) as error:
        read_layout(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "\xff", "[" * 100_000, '{"position": {"a": [1e999]}}'])
def test_a_torn_layout_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "layout.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="layout.json: ") as error:
        read_layout(tmp_path / "layout.json")
    assert "\n" not in str(error.value)


NAMES = st.text(st.characters(categories=("L", "N", "P", "Zs"), exclude_characters="/\\"), min_size=1, max_size=20).filter(
    lambda name: name.strip() and name.isprintable() and name not in (".", "..")
)


@settings(max_examples=60, deadline=None)
@given(name=NAMES)
def test_any_name_of_a_file_is_a_name_of_a_node(name, tmp_path_factory):
    text = json.dumps(layout()).replace("grey bowl", json.dumps(name)[1:-1])
    if len(json.loads(text)["objs_mapping"]) < 5:
        return  # the name of another node
    path = tmp_path_factory.mktemp("names") / "layout.json"
    path.write_text(text)
    found = read_layout(path)
    assert name in found.objects and " " not in file_name(name)
    write_layout(path, found)
    assert json.loads(path.read_text()) == json.loads(text)


# ---- who is who


def cast(task: str, manipulated: tuple[str, ...] = ("rubik's cube",), **names: str):
    content = layout()
    content["relation"]["task_desc"] = task
    for node in ASSETS:
        if node != "wooden table":
            content["objs_mapping"][node] = "manipulated_objs" if node in manipulated else "distractor_objs"
    return cast_roles(Layout.model_validate(content), Path("layout.json"), **names)


def test_the_sentence_says_who_is_who():
    found = cast("Put the mug into the bowl", manipulated=("grey bowl", "rubik's cube"))
    assert (found.target, found.destination, found.predicate, found.notes) == ("mug", "grey bowl", Relation.IN, [])
    found = cast("pick up the cube and place it on top of the grey bowl.")
    assert (found.target, found.destination, found.predicate) == ("rubik's cube", "grey bowl", Relation.ON)


def test_else_the_order_does_and_that_is_said():
    found = cast("tidy up", manipulated=("mug", "grey bowl"))
    assert {found.target, found.destination} == {"mug", "grey bowl"} and found.predicate is None and len(found.notes) == 3
    found = cast("put the pear in the bowl")
    assert (found.target, found.destination, found.sentence) == ("rubik's cube", "grey bowl", None)
    assert found.notes == ["target: no object is called 'the pear'; took \"rubik's cube\""]


def test_the_caller_has_the_last_word():
    found = cast("Put the mug in the bowl", target="rubik's cube")
    assert (found.target, found.destination, found.sentence) == ("rubik's cube", "grey bowl", None)
    with pytest.raises(UserError, match="destination: found no object 'pan'; wanted one of rubik's cube"):
        cast("Put the mug in the bowl", destination="pan")
    with pytest.raises(UserError, match="found 'the table' as the place; wanted one of rubik"):
        cast("Put the mug on the table")


# ---- turns


QUATERNIONS = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(QUATERNIONS)
def test_orders_of_quaternions_agree_with_the_simulator(q):
    x, y, z, w = np.array(q) / np.linalg.norm(q)
    turn = from_xyzw([x, y, z, w])
    np.testing.assert_allclose(turn.as_matrix(), sapien.Pose(q=[w, x, y, z]).to_transformation_matrix()[:3, :3], atol=1e-5)
    assert to_wxyz(turn) == (to_xyzw(turn)[3], *to_xyzw(turn)[:3])
    np.testing.assert_allclose(from_wxyz(to_wxyz(turn)).as_matrix(), turn.as_matrix(), atol=1e-12)


@given(st.floats(-3.1, 3.1))
def test_a_yaw_about_y_is_a_yaw_about_z_once_upright(yaw):
    """The old loader's turn of a y-up object, then a quarter turn about x, is today's quarter turn, then a yaw about z."""
    old = UPRIGHT * from_xyzw([0, np.sin(yaw / 2), 0, np.cos(yaw / 2)])
    np.testing.assert_allclose(old.as_matrix(), (about_z(yaw) * UPRIGHT).as_matrix(), atol=1e-12)
    assert abs(yaw_of(old * UPRIGHT.inv()) - yaw) < 1e-9


@given(QUATERNIONS, QUATERNIONS, st.lists(st.floats(-2, 2), min_size=6, max_size=6))
def test_frames_compose_and_invert(a, b, p):
    one, two = (Frame(p[i : i + 3], from_xyzw(np.array(q) / np.linalg.norm(q))) for i, q in ((0, a), (3, b)))
    poses = [sapien.Pose(frame.p, to_wxyz(frame.turn)) for frame in (one, two)]
    np.testing.assert_allclose((one * two).p, (poses[0] * poses[1]).p, atol=1e-5)
    np.testing.assert_allclose(Frame.of_row((one * one.inverse()).row()).p, 0, atol=1e-9)


# ---- URDFs


def test_a_urdf_is_read_with_what_it_leaves_out():
    asset = ASSETS["mug"]
    read = parse_urdf(urdf("mug", asset, None, legacy=True), Path("mug.urdf"))
    assert read.legacy and read.friction == (0.7, 0.6) and read.mass == 0.25
    np.testing.assert_allclose(read.mesh_to_link.as_matrix(), UPRIGHT.as_matrix(), atol=1e-12)
    read = parse_urdf(urdf("mug", asset, "v0.1.5", legacy=False), Path("mug.urdf"))
    assert not read.legacy and read.info["version"] == "v0.1.5"
    np.testing.assert_allclose(read.mesh_to_link.as_matrix(), UPRIGHT.as_matrix(), atol=1e-12)
    standing = parse_urdf(urdf("mug", asset, "v0.1.6", legacy=True), Path("mug.urdf"))  # origins as they are, and meant so
    assert not standing.legacy and standing.mesh_to_link.magnitude() == 0
    bare = '<robot name="a"><link name="a"><visual><geometry><mesh filename="a.obj"/></geometry></visual></link></robot>'
    read = parse_urdf(bare, Path("a.urdf"))
    assert read.legacy and read.mass is None and read.collision is None and read.info == {} and read.files == []


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v0.1.4", (0, 1, 4)),
        ("0.1.5", (0, 1, 5)),
        ("v0.1.5-pre", (0, 1, 4)),
        ("v1.2", (1, 2, 0)),
        ("", (0, 0, 0)),
        ("new", (0, 0, 0)),
    ],
)
def test_versions(text, version):
    assert parse_version(text) == version


def test_a_urdf_is_written_back_as_it_was():
    text = urdf("mug", ASSETS["mug"], "v0.1.5", False)
    again = ElementTree.fromstring(parse_urdf(text, Path("mug.urdf")).text())
    before = ElementTree.fromstring(text)
    assert flat(again) == flat(before)


def flat(tree: ElementTree.Element) -> list:
    return [(item.tag, sorted(item.attrib.items()), (item.text or "").strip()) for item in tree.iter()]


GOOD = urdf("mug", ASSETS["mug"], "v0.1.5", False)
BAD_URDFS = {
    "not valid XML": GOOD[:300],
    "found a DOCTYPE": GOOD.replace("<robot", '<!DOCTYPE a [<!ENTITY b "cc">]><robot', 1),
    "root element 'sdf'": GOOD.replace("robot", "sdf"),
    "joint 'lid': found type revolute": GOOD.replace("</link>", '</link><joint name="lid" type="revolute"/>', 1),
    "link: found 2": GOOD.replace("</link>", '</link><link name="b"/>', 1),
    "found 0 visual": GOOD.replace("visual>", "seen>"),
    "found filename '../../mug.obj'": GOOD.replace("mesh/mug.obj", "../../mug.obj"),
    "found filename '/etc/passwd'": GOOD.replace("mesh/mug.obj", "/etc/passwd"),
    "found filename 'file://mug.obj'": GOOD.replace("mesh/mug.obj", "file://mug.obj"),
    "rpy: found '1.57 0'": GOOD.replace("1.5708 0.0 0.0", "1.57 0"),
    "wanted one factor for all axes": GOOD.replace("1.0 1.0 1.0", "1 2 1"),
    "inertial/mass: found 'nan'": GOOD.replace('mass value="0.25"', 'mass value="nan"'),
    "collision/gazebo/mu1: found 'slippery'": urdf("mug", ASSETS["grey bowl"], None, False).replace("0.8", "slippery"),
}


@pytest.mark.parametrize("message", BAD_URDFS)
def test_a_bad_urdf_is_refused_in_one_line(message, tmp_path):
    path = tmp_path / "mug.urdf"
    path.write_text(BAD_URDFS[message])
    with pytest.raises(UserError) as error:
        read_urdf(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


def test_bytes_that_hide_a_doctype_are_refused(tmp_path):
    (tmp_path / "a.urdf").write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_urdf(tmp_path / "a.urdf")


# ---- splats


def test_a_splat_is_what_its_header_says():
    points, colors = np.array([[0.0, 1, 2], [3, 4, 5]]), np.array([[1.0, 0, 0.5], [0.2, 0.4, 0.6]])
    data = splat_ply(points, colors, 0.1)
    header, body = data.split(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property float")]
    assert b"format binary_little_endian 1.0" in header and b"element vertex 2" in header
    rows = np.frombuffer(body, "<f4").reshape(2, len(names))
    values = dict(zip(names, rows.T, strict=True))
    np.testing.assert_allclose(np.stack([values[name] for name in "xyz"], 1), points)
    np.testing.assert_allclose(0.5 + 0.28209479 * np.stack([values[f"f_dc_{i}"] for i in range(3)], 1), colors, atol=1e-6)
    assert (1 / (1 + np.exp(-values["opacity"])) > 0.9).all() and np.allclose(np.exp(values["scale_1"]), 0.1)
    np.testing.assert_array_equal(np.stack([values[f"rot_{i}"] for i in range(4)], 1), [[1, 0, 0, 0]] * 2)


def test_samples_lie_on_the_surface_and_have_its_colours():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    uvs = vertices[:, :2]
    image = np.zeros((2, 2, 3))
    image[0, 1] = [1, 0, 0]  # the upper right quarter
    points, colors, distance = sample_surface(
        vertices, uvs, np.array([[0, 1, 2], [0, 2, 3]]), image, 500, np.random.default_rng(0)
    )
    upper_right = (points[:, 0] > 0.5) & (points[:, 1] > 0.5)
    np.testing.assert_array_equal(colors[:, 0], upper_right)
    assert 0.15 < upper_right.mean() < 0.35 and np.all(points[:, 2] == 0) and distance == pytest.approx(500**-0.5)
