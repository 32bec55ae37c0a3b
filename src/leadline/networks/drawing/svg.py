"""Scalable vector graphics: the few shapes that a drawing is made of, its colours and its type."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
INK, MUTED, RULE, GROUND, PAPER = "#1f1f1c", "#5f5e58", "#d9d7cf", "#f7f6f2", "#ffffff"
FLOW, AROUND, AROUND_TEXT = "#55544f", "#D55E00", "#A84300"

_NARROW, _THIN = frozenset("ijl.,:;'|!·I"), frozenset(" ftr()/-")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Sketch:
    """Shapes around the line along which data flow, from (0, 0) to (width, 0)."""

    svg: str
    width: float
    above: float
    below: float
    way: int = 0  # a way around other sketches that begins, or ends, in the middle of this one; 0: none
    words: str = ""  # on that way


def number(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    return f"{round(value, 1):g}"


def escape_text(text: str) -> str:
    """Return text for XML: escaped, and without what XML cannot hold."""
    return escape(_FORBIDDEN.sub("\ufffd", text))


def attributes(**values: object) -> str:
    """Return attributes as XML has them; `stroke_width` becomes stroke-width, `class_` class, None nothing."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in values.items() if value is not None)
    return "".join(
        f" {key}={quoteattr(number(value) if isinstance(value, float) else str(value))}" for key, value in pairs
    )


def path(steps: Sequence[object], colour: str = FLOW, width: float = 1.4, **more: object) -> str:
    """Return an open line; steps are path commands and numbers."""
    d = " ".join(number(step) if isinstance(step, int | float) else str(step) for step in steps)
    return f"<path{attributes(d=d, fill='none', stroke=colour, stroke_width=float(width), **more)}/>"


def elbows(points: Sequence[tuple[float, float]], radius: float) -> list[object]:
    """Return the steps of a line through points, its corners round."""
    steps: list[object] = ["M", *points[0]]
    for (x0, y0), (x1, y1), (x2, y2) in zip(points, points[1:], points[2:], strict=False):
        into, out = abs(x1 - x0) + abs(y1 - y0), abs(x2 - x1) + abs(y2 - y1)
        r = min(radius, into / 2, out / 2)
        steps += ["L", x1 - r * _sign(x1 - x0), y1 - r * _sign(y1 - y0)]
        steps += ["Q", x1, y1, x1 + r * _sign(x2 - x1), y1 + r * _sign(y2 - y1)]
    return [*steps, "L", *points[-1]]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def arrow(x: float, y: float, direction: str, colour: str = FLOW) -> str:
    """Return an arrow's head with its tip at (x, y)."""
    dx, dy = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}[direction]
    corners = ((0, 0), (-6 * dx - 3.2 * dy, -6 * dy - 3.2 * dx), (-6 * dx + 3.2 * dy, -6 * dy + 3.2 * dx))
    points = " ".join(f"{number(x + a)},{number(y + b)}" for a, b in corners)
    return f"<polygon{attributes(points=points, fill=colour)}/>"


def box(x: float, y: float, width: float, height: float, **more: object) -> str:
    """Return a rectangle."""
    return f"<rect{attributes(x=float(x), y=float(y), width=float(width), height=float(height), **more)}/>"


def label(
    x: float, y: float, text: str, size: float = 10, colour: str = INK, anchor: str = "middle", **more: object
) -> str:
    """Return a line of text with its baseline at y."""
    anchor_or_none = None if anchor == "start" else anchor
    shown = attributes(x=float(x), y=float(y), font_size=float(size), fill=colour, text_anchor=anchor_or_none, **more)
    return f"<text{shown}>{escape_text(text)}</text>"


def group(content: str, x: float = 0, y: float = 0, title: str = "", **more: object) -> str:
    """Return shapes as one, moved; `title` is what a pointer over it is told."""
    move = f"translate({number(x)} {number(y)})" if x or y else None
    said = f"<title>{escape_text(title)}</title>" if title else ""
    return f"<g{attributes(transform=move, **more)}>{said}{content}</g>"


def length(text: str, size: float, bold: bool = False) -> float:
    """Return about how wide a text is in a common sans-serif type, rather too wide than too narrow."""
    em = sum(
        0.26 if c in _NARROW else 0.34 if c in _THIN else 0.86 if c in "mwMW%—⋯" else 0.7 if c.isupper() else 0.57
        for c in text
    )
    return em * size * (1.07 if bold else 1)


def wrap(text: str, width: float, size: float, separator: str = " ") -> list[str]:
    """Return text in lines of at most this width, broken at separators alone."""
    lines: list[str] = []
    for word in text.split(separator):
        if lines and length(lines[-1] + separator + word, size) <= width:
            lines[-1] += separator + word
        else:
            lines.append(word)
    return lines
