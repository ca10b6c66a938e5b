"""What things are made of: density, friction, restitution, gloss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Material:
    """density [kg/m3] is that of the whole object as it is usually built (a plastic toy is mostly air); friction is against the
    rubber of a gripper or the top of a table; words are what a sentence calls it."""

    density: float
    static_friction: float
    dynamic_friction: float
    restitution: float
    shininess: float
    words: tuple[str, ...]


MATERIALS: dict[str, Material] = {
    "wood": Material(620, 0.60, 0.50, 0.10, 15, ("wooden", "wood")),
    "plastic": Material(520, 0.50, 0.42, 0.10, 50, ("plastic",)),
    "rubber": Material(650, 0.90, 0.80, 0.20, 5, ("rubber",)),
    "ceramic": Material(2200, 0.50, 0.42, 0.05, 120, ("ceramic", "porcelain", "clay")),
    "metal": Material(1000, 0.45, 0.38, 0.05, 90, ("metal", "metallic", "steel", "tin")),
    "glass": Material(1100, 0.45, 0.40, 0.05, 150, ("glass",)),
    "paper": Material(450, 0.60, 0.50, 0.05, 2, ("paper", "cardboard")),
    "fabric": Material(300, 0.80, 0.70, 0.00, 1, ("fabric", "cloth", "cotton")),
    "foam": Material(260, 0.80, 0.70, 0.05, 1, ("foam",)),
    "wicker": Material(420, 0.60, 0.50, 0.05, 5, ("wicker", "woven", "rattan")),
    "produce": Material(900, 0.60, 0.50, 0.05, 25, ()),
}
