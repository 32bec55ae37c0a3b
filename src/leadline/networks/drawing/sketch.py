"""Sketches of what a network is made of: layers, blocks with their shortcuts, an unrolled recurrence."""

from collections.abc import Sequence

from leadline.networks.drawing.outline import (
    BlockOutline,
    Fork,
    Joint,
    Kind,
    Layer,
    Omission,
    Piece,
    Recurrence,
    Shortcut,
)
from leadline.networks.drawing.svg import (
    AROUND,
    AROUND_TEXT,
    FLOW,
    INK,
    MUTED,
    PAPER,
    Sketch,
    arrow,
    box,
    elbows,
    group,
    label,
    length,
    path,
    wrap,
)

HALF = 25.0  # half of a layer's height
_BAR, _GAP, _TIGHT, _NODE = 18.0, 13.0, 3.0, 8.5
_LANE, _GATE_LANE, _CHIP = HALF + 22, 33.0, 18.0
_SHOWN_STEPS = 8

_COLOURS: dict[Kind, tuple[str, str]] = {  # ground and edge: tints and shades of Okabe & Ito's colours
    "convolution": ("#dcecf7", "#0072B2"),
    "normalisation": ("#dbf1e8", "#008a64"),
    "activation": ("#fdeecf", "#b97f00"),
    "pooling": ("#f7e4ee", "#b05a8b"),
    "linear": ("#c6e2f5", "#005a8c"),
    "noise": ("#f4f3ef", "#77756d"),
    "scalar": ("#fbf8d0", "#9a8f00"),
    "other": ("#ecebe6", "#77756d"),
}


def sketch(piece: Piece, repeats: int = 1) -> Sketch:
    """Return the sketch of a piece that stands in the network so many times."""
    match piece:
        case BlockOutline():
            return _block(piece, repeats)
        case Recurrence():
            return _recurrence(piece)
        case Omission():
            return _omission(piece)
        case Fork():
            dot = f'<circle cx="7" cy="0" r="2.6" fill="{AROUND}"/>'
            return Sketch(path(["M", 0, 0, "H", 14]) + dot, 14, HALF, HALF, piece.number)
        case Joint():
            width = 2 * _NODE + 16
            line = path(["M", 0, 0, "H", width])
            return Sketch(line + _node(width / 2, 0, piece.join), width, HALF, HALF, piece.number, piece.words)
    svg, width = _chain(piece, 0)
    return Sketch(path(["M", 0, 0, "H", width]) + svg, width, HALF, HALF)


# --- layers


def _chain(layers: Sequence[Layer], x: float) -> tuple[str, float]:
    """Return layers from x on, one after the other, and where they end."""
    shapes = ""
    for layer in layers:
        bar = _is_bar(layer)
        x += _TIGHT if bar else _GAP
        shape, width = _bar(layer, x) if bar else _box(layer, x)
        shapes += shape if bar else arrow(x, 0, "right") + shape
        x += width
    return shapes, x


def _is_bar(layer: Layer) -> bool:
    return not layer.detail and not layer.rate


def _bar(layer: Layer, x: float) -> tuple[str, float]:
    size = min(10, 44 / length(layer.name, 1))
    ground, edge = _COLOURS[layer.kind]
    text = label(0, 0, layer.name, size, transform=f"translate({x + _BAR / 2 + 0.35 * size:.1f} 0) rotate(-90)")
    shape = box(x, -HALF, _BAR, 2 * HALF, rx=2.5, fill=ground, stroke=edge)
    return group(shape + text, title=layer.text, class_="layer"), _BAR


def _box(layer: Layer, x: float) -> tuple[str, float]:
    detail = ", ".join(part for part in (layer.detail, layer.rate) if part)
    lines = [layer.name, *wrap(detail, 50, 10, ", ")]
    width = max(length(line, 10) for line in lines) + 10
    ground, edge = _COLOURS[layer.kind]
    shape = box(x, -HALF, width, 2 * HALF, rx=4, fill=ground, stroke=edge, stroke_dasharray=_dashes(layer))
    top = 3.5 - 6.5 * (len(lines) - 1)
    shape += "".join(label(x + width / 2, top + 13 * i, line) for i, line in enumerate(lines))
    return group(shape, title=layer.text, class_="layer"), width


def _dashes(layer: Layer) -> str | None:
    return "3 2" if layer.kind == "noise" else None


def _chips(layers: Sequence[Layer], left: float, y: float) -> str:
    """Return layers in one line each, from left on along a line at y."""
    shapes = ""
    for layer in layers:
        width = _chip_width(layer)
        ground, edge = _COLOURS[layer.kind]
        shape = box(left, y - _CHIP / 2, width, _CHIP, rx=3, fill=ground, stroke=edge, stroke_dasharray=_dashes(layer))
        shape += label(left + width / 2, y + 3.4, layer.text, 9.5)
        shapes += group(shape, title=layer.text, class_="layer")
        left += width + _TIGHT
    return shapes


def _chip_width(layer: Layer) -> float:
    return length(layer.text, 9.5) + 10


def _chips_width(layers: Sequence[Layer]) -> float:
    return sum(map(_chip_width, layers)) + _TIGHT * max(0, len(layers) - 1)


# --- blocks


def _block(block: BlockOutline, repeats: int) -> Sketch:
    shapes, x = _chain(block.before, 0)
    above = HALF
    if block.shortcut is None:
        branch, x = _chain(block.branch, x)
        shapes += branch
    else:
        around, x, above = _around(block.shortcut, block.branch, x + (14 if block.shared else 10))
        shapes += around
    after, x = _chain(block.after, x + (3 if block.shortcut else 0))
    shapes += after
    words = _count_words(block)
    x += 8 if block.shared else 4
    needed = max((length(line, 10, bold=True) for line in words), default=0) + 8
    shift = max(0.0, (needed - x) / 2)
    width = max(x, needed)
    flow = path(["M", 0, 0, "H", width])
    under = ""
    if block.count > 1:
        under = _loop(width) if block.shared else _bracket(shift, shift + x)
    under += "".join(
        label(width / 2, HALF + 24 + 12.5 * i, line, 10, MUTED if i else INK, font_weight=None if i else 600)
        for i, line in enumerate(words)
    )
    svg = flow + (group(shapes, shift) if shift else shapes) + under
    below = HALF + (12 + 12.5 * len(words) if words else 0)
    return Sketch(group(svg, class_="block", data_blocks=block.count * repeats), width, above, below)


def _count_words(block: BlockOutline) -> list[str]:
    if block.shared:
        own = ["each step has its own normalisation"] if block.own_normalisation else []
        return [f"× {block.count} steps, shared weights" if block.count > 1 else "1 step, shared weights", *own]
    if block.count > 1:
        return [f"× {block.count}", f"blocks {block.first}–{block.first + block.count - 1}"]
    return []


def _bracket(left: float, right: float) -> str:
    y = HALF + 6
    steps = elbows([(left + 4, y), (left + 4, y + 6), (right - 4, y + 6), (right - 4, y)], 3)
    return path(steps, MUTED, 1.2, class_="fold")


def _loop(width: float) -> str:
    y = HALF + 12
    steps = elbows([(width - 3, 0), (width - 3, y), (4, y), (4, 1)], 8)
    return path(steps, AROUND, 1.6, class_="loop") + arrow(4, 1, "up", AROUND)


def _around(shortcut: Shortcut, branch: Sequence[Layer], fork: float) -> tuple[str, float, float]:
    """Return a branch and the way around it from a fork on, where they end, and how far up they reach."""
    gated, exclusive = bool(shortcut.gate), shortcut.exclusive
    words = length(shortcut.words, 9.5)
    needed = max(words, _chips_width(shortcut.layers), _chips_width(shortcut.gate)) + 34 + (44 if gated else 0)
    _, wide = _chain(branch, 0)
    weigh = 24.0 if exclusive else 0.0
    span = max(wide + weigh + 14 + 2 * _NODE + 4, needed)
    shapes, _ = _chain(branch, fork + (span - wide - weigh - _NODE - 8) / 2)
    join = fork + span
    lane = -(_LANE + _GATE_LANE if gated else _LANE)
    weighing = join - (30 if exclusive else 36)
    way = [(fork, 0.0), (fork, lane), (join, lane), (join, -_NODE)]
    dashes = "5 3.5" if shortcut.padded else None
    lines = path(elbows(way, 15), AROUND, 1.7, class_="shortcut", stroke_dasharray=dashes)
    lines += arrow(join, -_NODE, "down", AROUND) + f'<circle cx="{fork:g}" cy="0" r="2.6" fill="{AROUND}"/>'
    right = weighing - _NODE if gated else join
    middle = (fork + right) / 2
    lines += _chips(shortcut.layers, middle - _chips_width(shortcut.layers) / 2, lane)
    high = _CHIP / 2 if shortcut.layers else 0.0
    if shortcut.words:
        lines += label(middle, lane - high - 5, shortcut.words, 9.5, AROUND_TEXT)
    if gated:
        lines += _gate(shortcut, fork, weighing, lane)
    return lines + shapes + _node(join, 0, shortcut.join), join + _NODE, high + (15 if shortcut.words else 4) - lane


def _gate(shortcut: Shortcut, fork: float, weighing: float, lane: float) -> str:
    """Return the gate's own line: from the fork over its layers to where it weighs shortcut and, perhaps, branch."""
    y = -_LANE
    shapes = path(["M", fork, y, "H", weighing, "V", lane + _NODE], AROUND, 1.2, class_="gate")
    shapes += arrow(weighing, lane + _NODE, "up", AROUND)
    shapes += _chips(shortcut.gate, (fork + weighing - _chips_width(shortcut.gate)) / 2, y)
    shapes += label(weighing + 4, y - 6, "1 − g", 9.5, AROUND_TEXT, "start") + _node(weighing, lane, "multiply")
    if shortcut.exclusive:
        shapes += path(["M", weighing, y, "V", -_NODE], AROUND, 1.2) + arrow(weighing, -_NODE, "down", AROUND)
        shapes += label(weighing + 4, y + 13, "g", 9.5, AROUND_TEXT, "start") + _node(weighing, 0, "multiply")
    return shapes


def _node(x: float, y: float, kind: str) -> str:
    r, a = _NODE, 4.2
    if kind == "concatenate":
        mark = label(x, y + 3.7, "C", 10.5, AROUND_TEXT, font_weight=600)
    elif kind == "custom":
        mark = label(x, y + 3.7, "ƒ", 10.5, AROUND_TEXT, font_weight=600)
    elif kind == "multiply":
        mark = path(["M", x - 3, y - 3, "L", x + 3, y + 3, "M", x - 3, y + 3, "L", x + 3, y - 3], AROUND, 1.7)
    else:
        mark = path(["M", x - a, y, "H", x + a, "M", x, y - a, "V", y + a], AROUND, 1.7)
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" fill="{PAPER}" stroke="{AROUND}" stroke-width="1.6"/>'
    return group(circle + mark, title=kind, class_="node")


def way(start: float, end: float, height: float, words: str) -> str:
    """Return a way from a fork up, over what lies between, and down to where it is joined."""
    steps = elbows([(start, 0.0), (start, -height), (end, -height), (end, -_NODE)], 15)
    shapes = path(steps, AROUND, 1.7, class_="shortcut") + arrow(end, -_NODE, "down", AROUND)
    return shapes + (label((start + end) / 2, -height - 5, words, 9.5, AROUND_TEXT) if words else "")


def way_end(x: float, number: int, joins: bool) -> str:
    """Return one end of a way whose other end is in another row, with the letter that both have."""
    top, end = -HALF - 8, -_NODE if joins else 0.0
    shapes = path(["M", x, end, "V", top], AROUND, 1.7, class_="shortcut" if joins else None)
    shapes += arrow(x, end, "down", AROUND) if joins else ""
    circle = f'<circle cx="{x:.1f}" cy="{top - 8:.1f}" r="8" fill="{AROUND}"/>'
    letter = chr(ord("a") + (number - 1) % 26)
    return shapes + circle + label(x, top - 4.6, letter, 10.5, PAPER, font_weight=600)


WAY_END = HALF + 26.0
"""How far up the end of a way reaches."""


# --- recurrence, omission


def _recurrence(cell: Recurrence) -> Sketch:
    """Return the cell once for each step, the same features entering each from below."""
    folded = cell.steps > _SHOWN_STEPS
    drawn = [1, 2, 3, 0, cell.steps] if folded else list(range(1, cell.steps + 1))
    bus, side, gap, x = HALF + 20, 34.0, 25.0, 54.0
    shapes = label(38, 3.5, "h = 0", 9.5)
    entries = ""
    for step in drawn:
        shapes += path(["M", x, 0, "H", x + gap], AROUND, 1.6) + label(x + gap / 2 - 3, -5, "U", 9.5, AROUND_TEXT)
        x += gap
        if step == 0:
            shapes += label(x + side / 2, 4, "⋯", 14)
        else:
            shapes += arrow(x, 0, "right", AROUND) + _cell(x, side, step)
            entries += path(["M", x + side / 2, bus, "V", HALF - 6]) + arrow(x + side / 2, HALF - 6, "up")
            entries += label(x + side / 2 + 5, HALF + 11, "W", 9.5, MUTED, "start")
        x += side
    last = x - side / 2
    shapes += path(elbows([(0, 0), (6, 0), (6, bus), (last, bus)], 8)) + entries
    shapes += path(["M", x, 0, "H", x + 10])
    said = [
        f"× {cell.steps} steps, shared weights" if cell.steps > 1 else "1 step",
        f"h ← tanh(Wx + b + Uh + c); x: {cell.features:,} features, h: {cell.width:,} units",
    ]
    for i, line in enumerate(said):
        shapes += label((x + 10) / 2, bus + 17 + 13 * i, line, 10, MUTED if i else INK, font_weight=None if i else 600)
    width = x + 10
    needed = length(said[1], 10)
    if needed > width:
        shapes = group(shapes, (needed - width) / 2) + path(["M", 0, 0, "H", (needed - width) / 2])
        shapes += path(["M", (needed + width) / 2, 0, "H", needed])
    return Sketch(group(shapes, class_="recurrence"), max(width, needed), HALF, bus + 33)


def _cell(x: float, side: float, step: int) -> str:
    ground, edge = _COLOURS["activation"]
    shape = box(x, -HALF + 6, side, 2 * HALF - 12, rx=4, fill=ground, stroke=edge)
    return group(shape + label(x + side / 2, 3.5, "tanh"), title=f"step {step}", class_="cell")


def _omission(left_out: Omission) -> Sketch:
    words = [f"{left_out.stages:,} stages", f"{left_out.blocks:,} blocks", "not drawn"]
    width = max(length(line, 10) for line in words) + 60
    shapes = path(["M", 0, 0, "H", width], FLOW, 1.4, stroke_dasharray="1.5 4")
    shapes += box(26, -22, width - 52, 44, fill=PAPER)
    shapes += "".join(label(width / 2, -9 + 13 * i, line, 10, MUTED) for i, line in enumerate(words))
    return Sketch(group(shapes, class_="omission", data_blocks=left_out.blocks), width, HALF, HALF)
