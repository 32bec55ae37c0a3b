"""A drawing as a page: the network's parts in rows, joined by the line along which data flow, with a caption."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from leadline.networks.drawing.custom import outline_module
from leadline.networks.drawing.outline import (
    NORMALISATIONS,
    BlockOutline,
    Fork,
    Joint,
    Layer,
    Omission,
    Part,
    Piece,
    Recurrence,
    Shortcut,
    Sizes,
    outline,
)
from leadline.networks.drawing.sketch import HALF, WAY_END, sketch, way, way_end
from leadline.networks.drawing.svg import (
    FLOW,
    FONT,
    GROUND,
    INK,
    MUTED,
    PAPER,
    RULE,
    Sketch,
    arrow,
    attributes,
    box,
    elbows,
    escape_text,
    group,
    label,
    length,
    number,
    path,
    wrap,
)
from leadline.networks.modules import InputShape, Network, NetworkInfo, build, inspect_network, skeleton
from leadline.networks.modules.shapes import remember_shapes
from leadline.specs import ModuleSpec, NetworkSpec

_MARGIN, _PAD, _HEADER, _ROW_GAP = 20.0, 12.0, 24.0, 40.0
_LEAST, _MOST = 700.0, 900.0  # widths
_MOST_STAGES = 8
_SHORT = {
    **dict(NORMALISATIONS.values()),
    "WS": "weights standardised",
    "/2": "stride 2, which halves height and width",
    "α": "a learned factor",
    "β": "a learned shift",
    "σ": "sigmoid, which gives the gate g",
    "drop path": "rate at which the branch is dropped",
}


@dataclass(frozen=True)
class _Panel:
    """Sketches on one ground, and the words on the line that leaves them."""

    name: str
    blocks: int
    sketches: tuple[Sketch, ...]
    gives: str
    last: bool = False
    parameters: int | None = None
    repeated: bool = False  # which the name says

    @property
    def width(self) -> float:
        inner = sum(sketch.width for sketch in self.sketches)
        told = length(self.note, 10) + 18 if self.parameters is not None else 0
        return max(inner + 2 * _PAD, length(self.name, 11, bold=True) + 18 + told) if self.name else inner

    @property
    def note(self) -> str:
        """What stands at the right of the name: how many blocks, and where it is told, how many parameters."""
        parts = [f"{self.blocks:,} blocks"] * (self.blocks > 1 and not self.repeated)
        return ", ".join([*parts, *([f"{_format_short(self.parameters)} parameters"] if self.parameters else [])])


def draw(
    spec: NetworkSpec | ModuleSpec,
    input_shape: InputShape,
    classes: int,
    title: str,
    info: NetworkInfo | None = None,
) -> str:
    """Return a drawing of a network as SVG: stem, stages of blocks with their shortcuts, head, sizes, counts.

    Consecutive blocks that look alike are drawn once with their number, and of many stages the repeated and the middle
    ones are folded or left out, so the drawing of a deep network is as small as that of a shallow one. The same
    arguments give the same bytes. A module that somebody else wrote is drawn from what it computes for one image.

    Args:
        spec: the network.
        input_shape: channels, height, width of an image.
        classes: number of logits.
        title: stands above the drawing.
        info: what `inspect_network` says of the same network, where it is at hand.

    Raises:
        SpecError: the specification cannot take images of this shape, or what a module computes cannot be followed.
    """
    info = info or inspect_network(spec, input_shape, classes)
    if isinstance(spec, ModuleSpec):
        parts = outline_module(build(spec, input_shape, classes), input_shape, spec.module)
    else:
        network = skeleton(spec, input_shape, classes)
        parts = outline(network, spec, _sizes(network, input_shape), _MOST_STAGES)
    rows = _rows([_panel(part, part is parts[-1]) for part in parts], input_shape)
    width = max(_LEAST, *(_row_width(row) + 2 * _MARGIN for row in rows))
    described = _describe(parts, input_shape)
    caption = _caption(info, input_shape, classes, described)
    if any(len(panels) > 1 for panels in _ends(rows).values()):
        caption.append("Equal letters mark where a skip connection begins and where it ends.")
    return _page(rows, title, caption, described, width)


def _sizes(network: Network, input_shape: InputShape) -> Sizes:
    """Return the shape that stem, blocks, what stands between them, and head give for one image."""
    sizes: Sizes = {}
    x = torch.empty(1, *input_shape, device="meta")
    with torch.no_grad(), remember_shapes():
        for module in (
            network.stem,
            *(module for stage in network.stages for module in stage.children()),
            network.head,
        ):
            x = module.eval()(x)
            sizes[module] = tuple(x.shape[1:])
    return sizes


def _panel(part: Part, last: bool) -> _Panel:
    sketches = tuple(sketch(piece, part.repeats) for piece in part.pieces)
    return _Panel(
        part.name,
        part.blocks,
        sketches,
        _size(part.size),
        last,
        part.parameters,
        part.parameters is not None and part.repeats > 1,
    )


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


# --- rows


def _rows(panels: list[_Panel], input_shape: Sequence[int]) -> list[list[_Panel]]:
    """Set panels in rows as words in lines; one that is too wide for a row goes on in the next."""
    room = _MOST - 2 * _MARGIN
    rows: list[list[_Panel]] = [[_input(input_shape)]]
    for panel in panels:
        if _row_width([*rows[-1], panel]) <= room:
            rows[-1].append(panel)
        elif panel.width <= room:
            rows.append([panel])
        else:
            rows += [[part] for part in _break_panel(panel, room)]
    return rows


def _input(shape: Sequence[int]) -> _Panel:
    size = _size(shape)
    width = length(size, 10) + 12
    shapes = box(0, -HALF, width, 2 * HALF, rx=4, fill=PAPER, stroke=FLOW)
    shapes += label(width / 2, -3, "input") + label(width / 2, 10, size)
    return _Panel("", 0, (Sketch(shapes, width, HALF, HALF),), "")


def _break_panel(panel: _Panel, room: float) -> list[_Panel]:
    parts: list[list[Sketch]] = []
    for piece in panel.sketches:
        if parts and sum(other.width for other in (*parts[-1], piece)) + 2 * _PAD <= room:
            parts[-1].append(piece)
        else:
            parts.append([piece])
    return [
        _Panel(
            panel.name + (", continued" if i else ""),
            0 if i else panel.blocks,
            tuple(part),
            panel.gives if i == len(parts) - 1 else "",
            panel.last and i == len(parts) - 1,
            None if i else panel.parameters,
        )
        for i, part in enumerate(parts)
    ]


def _row_width(row: Sequence[_Panel]) -> float:
    return sum(panel.width for panel in row) + sum(_gap_after(panel) for panel in row[:-1])


def _gap_after(panel: _Panel) -> float:
    """Return how far the next panel is away, so that the words between them have room."""
    return length(panel.gives, 10) + 16 if panel.gives else 22


# --- the page


def _page(rows: list[list[_Panel]], title: str, caption: list[str], described: str, width: float) -> str:
    shapes, y = "", _MARGIN + 14
    for line in wrap(title, width - 2 * _MARGIN, 16):
        shapes += label(_MARGIN, y, line, 16, INK, "start", font_weight=600)
        y += 20
    y += 2
    spare = width - 2 * _MARGIN - _row_width(rows[0]) if len(rows) == 1 else 0
    left, flow = _MARGIN + spare / 2, 0.0
    for i, row in enumerate(rows):
        ways, above = _ways(row, left)
        flow_before, flow = flow, y + _HEADER + 6 + max(above, *(one.above for panel in row for one in panel.sketches))
        bottom = flow + max(sketch.below for panel in row for sketch in panel.sketches) + 10
        if i:
            shapes += _turn(rows[i - 1], left, flow_before, y - _ROW_GAP / 2, flow)
        shapes += _row(row, left, y, flow, bottom) + group(ways, 0, flow)
        y = bottom + _ROW_GAP
    y += 22 - _ROW_GAP
    for line in (part for sentence in caption for part in wrap(sentence, width - 2 * _MARGIN, 11)):
        shapes += label(_MARGIN, y, line, 11, MUTED, "start")
        y += 15
    height = y + 4
    opening = attributes(
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        width=width,
        height=height,
        viewBox=f"0 0 {number(width)} {number(height)}",
        font_family=FONT,
    )
    said = f"<title>{escape_text(title)}</title><desc>{escape_text(described)}</desc>"
    return f"<svg{opening}>{said}{box(0, 0, width, height, fill=PAPER)}{shapes}</svg>\n"


def _row(row: Sequence[_Panel], left: float, top: float, flow: float, bottom: float) -> str:
    shapes, x = "", left
    for i, panel in enumerate(row):
        if panel.name:
            shapes += box(x, top, panel.width, bottom - top, rx=6, fill=GROUND, stroke=RULE)
            shapes += label(x + 9, top + 16, panel.name, 11, INK, "start", font_weight=600)
            name_width = length(panel.name, 11, bold=True)
            if panel.note and name_width + length(panel.note, 10) + 30 < panel.width + 12 * bool(panel.parameters):
                shapes += label(x + panel.width - 9, top + 16, panel.note, 10, MUTED, "end")
        inner = sum(sketch.width for sketch in panel.sketches)
        start = x + (panel.width - inner) / 2
        if panel.name:
            shapes += path(["M", x, flow, "H", start])
            shapes += "" if panel.last else path(["M", start + inner, flow, "H", x + panel.width])
        for piece in panel.sketches:
            shapes += group(piece.svg, start, flow)
            start += piece.width
        x += panel.width
        if i < len(row) - 1:
            space = _gap_after(panel)
            shapes += path(["M", x, flow, "H", x + space])
            shapes += arrow(x + space, flow, "right") if row[i + 1].name else ""
            shapes += label(x + space / 2 - 2, flow - 6, panel.gives, 10, MUTED) if panel.gives else ""
            x += space
    return shapes


def _ways(row: Sequence[_Panel], left: float) -> tuple[str, float]:
    """Return the ways around sketches of a row, the inner ones lower, and how far up they reach."""
    placed, x = [], left
    for panel in row:
        start = x + (panel.width - sum(one.width for one in panel.sketches)) / 2
        for one in panel.sketches:
            placed.append((start + one.width / 2, one))
            start += one.width
        x += panel.width + _gap_after(panel)
    ends: dict[int, list[int]] = {}
    for i, (_, one) in enumerate(placed):
        if one.way:
            ends.setdefault(one.way, []).append(i)
    shapes, heights = "", [one.above for _, one in placed]
    for key, places in sorted(ends.items(), key=lambda item: item[1][-1] - item[1][0]):
        first, last = places[0], places[-1]
        (start, _), (end, joined) = placed[first], placed[last]
        if first == last:
            shapes += way_end(start, key, bool(joined.svg.count("node")))
            heights[first] = max(heights[first], WAY_END)
            continue
        height = max(heights[first : last + 1]) + 12
        shapes += way(start, end, height, joined.words)
        heights[first : last + 1] = [height + 13 * bool(joined.words)] * (last + 1 - first)
    return shapes, max(heights)


def _ends(rows: Sequence[Sequence[_Panel]]) -> dict[int, set[int]]:
    """Return way -> the rows in which it has an end."""
    found: dict[int, set[int]] = {}
    for place, row in enumerate(rows):
        for one in (one for panel in row for one in panel.sketches if one.way):
            found.setdefault(one.way, set()).add(place)
    return found


def _turn(row: Sequence[_Panel], left: float, flow: float, lane: float, next_flow: float) -> str:
    """Return the line from the end of a row to the start of the next."""
    right = left + _row_width(row)
    points = [(right, flow), (right + 10, flow), (right + 10, lane), (left - 10, lane), (left - 10, next_flow)]
    shapes = path(elbows([*points, (left, next_flow)], 8)) + arrow(left, next_flow, "right")
    if row[-1].gives:
        room = length(row[-1].gives, 10) + 12
        middle = (left + right) / 2
        shapes += box(middle - room / 2, lane - 8, room, 16, fill=PAPER) + label(
            middle, lane + 3.5, row[-1].gives, 10, MUTED
        )
    return shapes


# --- words


def _caption(info: NetworkInfo, input_shape: Sequence[int], classes: int, described: str) -> list[str]:
    """Return what the network costs, and what the short words stand for that are in the drawing."""
    costs = (
        f"{info.parameters:,} parameters; {_format_count(info.multiply_adds)} multiply-adds for one image of"
        f" {_size(input_shape)}; {classes:,} classes."
    )
    keys = "; ".join(f"{short}: {long}" for short, long in _SHORT.items() if re.search(rf"(?<!\w){short}\b", described))
    return [costs, f"{keys}."] if keys else [costs]


def _format_count(count: int) -> str:
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.4g} {word}"
    return f"{count:,}"


def _format_short(count: int | None) -> str:
    return (
        next(
            (
                f"{count / size:.3g} {unit}"
                for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k"))
                if count >= size
            ),
            str(count),
        )
        if count is not None
        else ""
    )


def _describe(parts: Sequence[Part], input_shape: Sequence[int]) -> str:
    """Return the drawing in words, for those who cannot see it."""
    said = [f"Input {_size(input_shape)}."]
    for part in parts:
        pieces = "; ".join(_describe_piece(piece) for piece in part.pieces)
        times = f", {part.repeats} times" if part.repeats > 1 else ""
        said.append(f"{part.name or 'Left out'}{times}: {pieces}; gives {_size(part.size)}.")
    return " ".join(said)


def _describe_piece(piece: Piece) -> str:
    match piece:
        case BlockOutline():
            count = "a block" if piece.count == 1 else f"{piece.count:,} blocks alike"
            count += " that share their weights" if piece.shared else ""
            after = f"{_describe_shortcut(piece.shortcut)}, then {_join_layers(piece.after)}" if piece.after else ""
            after = after or _describe_shortcut(piece.shortcut)
            return f"{count}: {_join_layers((*piece.before, *piece.branch))}{after}"
        case Recurrence():
            return f"simple RNN cell of {piece.width:,} units, {piece.steps} steps"
        case Omission():
            return f"{piece.stages:,} stages of {piece.blocks:,} blocks"
        case Fork():
            return f"way {piece.number} begins"
        case Joint():
            return f"joined by way {piece.number}, {', '.join(filter(None, (piece.join, piece.words)))}"
    return _join_layers(piece)


def _describe_shortcut(shortcut: Shortcut | None) -> str:
    if shortcut is None:
        return ""
    words = ", ".join(part for part in (shortcut.words, _join_layers(shortcut.layers)) if part)
    gate = f", gated by {_join_layers(shortcut.gate)}" if shortcut.gate else ""
    return f"; shortcut, {shortcut.join}: {words}{gate}"


def _join_layers(layers: Sequence[Layer]) -> str:
    return " then ".join(layer.text for layer in layers)
