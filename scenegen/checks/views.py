"""Pictures of one asset for a judge that looks: the same ones for the same files."""

from __future__ import annotations

from pathlib import Path

from scenegen.engines.procedural.textures import png
from scenegen.preview import Photographer

VIEWS = {"three-quarter": (-55.0, 34.0), "front": (-90.0, 18.0), "side": (0.0, 18.0), "top": (-90.0, 88.0)}
"""Where the camera stands: degrees about z from the x axis of the object, and above the horizon."""

SIZE = 256


def asset_views(photographer: Photographer, visual: Path) -> list[bytes]:
    """A PNG of SIZE x SIZE for each of VIEWS, in their order, on a neutral ground in neutral light."""
    pictures = [photographer.asset_view(visual, SIZE, azimuth_deg=a, elevation_deg=e) for a, e in VIEWS.values()]
    return [png(picture / 255.0) for picture in pictures]
