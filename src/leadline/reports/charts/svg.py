"""Images from Vega-Lite specifications, without Altair and pandas, which a process that only draws need not import."""

import re
from functools import cache
from typing import Any

import vl_convert


def draw_svg(specification: dict[str, Any]) -> str:
    """Return a chart as an image, from its Vega-Lite specification, which names its `$schema`."""
    return vl_convert.vegalite_to_svg(specification, vl_version=vegalite_version(specification["$schema"]))


def draw_standalone(name: str, specification: dict[str, Any]) -> str:
    """Return the SVG of a figure of this name from `Figure.specification`."""
    return prefix_ids(draw_svg(specification), f"{name}-")


@cache
def vegalite_version(schema: str) -> str:
    """Return the version of Vega-Lite of a schema's URL, or the newest there is of the same generation."""
    major, minor = re.findall(r"\d+", schema.rsplit("/", 1)[-1])[:2]
    known: list[str] = vl_convert.get_vegalite_versions()
    same = [version for version in known if version.split(".")[0] == major]
    return f"{major}.{minor}" if f"{major}.{minor}" in known else (same or known)[-1]


def prefix_ids(svg: str, prefix: str) -> str:
    """Number a picture's identifiers from 0 under its own prefix: they depend on what was drawn before, and clash."""
    numbers: dict[str, int] = {}

    def own(match: re.Match[str]) -> str:
        return f"{match[1]}{prefix}{numbers.setdefault(match[2], len(numbers))}{match[3]}"

    return re.sub(r'(\bid="|url\(#)([\w-]+)(["\)])', own, svg)
