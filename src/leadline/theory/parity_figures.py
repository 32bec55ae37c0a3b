"""Figures, a table and drawings of parity circuits: their growth with the number of bits, and the circuits."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from leadline.errors import SpecError
from leadline.networks.drawing.svg import (
    AROUND,
    AROUND_TEXT,
    FLOW,
    FONT,
    INK,
    MUTED,
    PAPER,
    arrow,
    attributes,
    box,
    escape_text,
    group,
    label,
    length,
    number,
    path,
    wrap,
)
from leadline.reports.charts.chart import (
    DASHES,
    Figure,
    Panel,
    arm_channels,
    at_field,
    each,
    inline,
    legend_keys,
    spread,
)
from leadline.text import join, plural
from leadline.text.tables import Column, Table
from leadline.theory.circuits import And, Circuit, Gate, Not, Or, Recurrence, Threshold, Xor, levels, size
from leadline.theory.parity import FAMILIES, NOTE, QUANTITIES

_TITLES = [family.title for family in FAMILIES.values()]


# --- figures and table


def figures(frame: pd.DataFrame) -> list[Figure]:
    """Return the figures of a frame of counts: growth in gates and growth in threshold units.

    Args:
        frame: from `leadline.theory.parity.counts`.
    """
    same = "Coinciding marks: XOR tree and chain have the same number of gates, DNF and threshold gates the same depth."
    common = (
        "All circuits counted in linear threshold units: an AND, OR or threshold gate is one unit, an XOR gate is"
        " three in two layers. Tree and chain have the same number of units, DNF and threshold gates the same number"
        " of layers."
    )
    return [
        _growth(frame, "parity-gates", "Parity: gates and depth by the number of bits", ("gates", "depth"), same),
        _growth(frame, "parity-units", "Parity as threshold networks: units and layers", ("units", "layers"), common),
    ]


def _growth(frame: pd.DataFrame, name: str, title: str, quantities: Sequence[str], words: str) -> Figure:
    rows = frame[frame["quantity"].isin(quantities)]
    rows = rows.assign(base=rows["circuit"].map({key: family.title for key, family in FAMILIES.items()}))
    most = int(rows["bits"].max())
    ends = rows[rows["bits"].eq(most)]
    said = [f"{row.base}, {QUANTITIES[row.quantity].lower()}: {row.formula:,}" for row in each(ends)]
    caption = "Lines: closed forms, at whole numbers of bits; marks: counted in circuits that were built and verified."
    return Figure(
        name,
        title,
        f"{caption} {words} {_describe_verification(frame)}",
        rows.drop(columns="base"),
        f"{title}. At {most} bits: {join(said, len(said), ';')}.",
        tuple(Panel(QUANTITIES[quantity], _panel(rows, quantity)) for quantity in quantities),
        len(quantities),
        tuple(legend_keys(_TITLES)),
    )


def _describe_verification(frame: pd.DataFrame) -> str:
    """Describe how the circuits were verified, and the result."""
    built = frame.dropna(subset="measured").drop_duplicates(["bits", "circuit"])
    wrong = int(built[["wrong_gates", "wrong_network"]].sum().sum())
    ways = {True: "on all inputs", False: "on random inputs"}
    parts = []
    for complete, way in ways.items():
        bits = built.loc[built["verified"].str.startswith("all").eq(complete), "bits"]
        if not bits.empty:
            least, most = int(bits.min()), int(bits.max())
            parts.append(f"{way} for {f'{least} to {most}' if least < most else most} bits")
    if not parts:
        return "No circuit was built."
    ended = "none was wrong" if wrong == 0 else plural(wrong, "wrong answer")
    return f"Verified {', '.join(parts)}: {ended}."


def _panel(rows: pd.DataFrame, quantity: str) -> alt.LayerChart:
    rows = rows[rows["quantity"].eq(quantity)]
    low, high = int(rows["bits"].min()), int(rows["bits"].max())
    closed = pd.DataFrame(
        {"base": family.title, "bits": n, "value": float(family.laws[quantity].value(n)), "law": law.text}
        for family in FAMILIES.values()
        for law in [family.laws[quantity]]
        for n in range(low, high + 1)
    )
    greatest = closed["value"].max()
    whole = [n for n in range(low, high + 1) if n % 2 == 0] if high - low > 6 else list(range(low, high + 1))
    x = alt.X(
        "bits:Q",
        title="Bits",
        axis=alt.Axis(values=spread(whole, 10), format="d", labelFlush=False),
        scale=alt.Scale(domain=[low, high], nice=False, padding=8),
    )
    powers = range(math.floor(math.log10(greatest)) + 1)
    values = [10.0**power for power in powers[:: math.ceil(len(powers) / 7)]]
    if len(powers) <= 2:
        values = [float(tick) for tick in (1, 2, 5, 10, 20, 50) if tick <= greatest * 1.2]
    y = alt.Y(
        "y:Q",
        title=f"{QUANTITIES[quantity]}, log scale",
        axis=alt.Axis(values=values, format="~e" if greatest >= 1e7 else ",d"),
        scale=alt.Scale(type="log", domain=[0.85, 1.3 * greatest], nice=False),
    )
    colour, _, shape = arm_channels(_TITLES)
    tips = [alt.Tooltip("base:N", title="circuit"), alt.Tooltip("bits:Q")]
    layers = []
    for base, dash in zip(_TITLES, DASHES, strict=False):  # a channel would dash the outlines of the legend's marks
        data = inline(closed[closed["base"].eq(base)], ["base", "bits", "value", "law"])
        line = alt.Chart(data).mark_line(strokeWidth=1.6, strokeDash=dash)
        layers.append(line.encode(x=x, y=at_field(y, "value"), color=colour, tooltip=[*tips, "law:N"]))
    measured = rows.dropna(subset="measured")
    if not measured.empty:
        data = inline(measured, ["base", "bits", "measured", "formula", "law", "verified"])
        tips += [alt.Tooltip(f"{field}:{kind}") for field, kind in (("measured", "Q"), ("formula", "Q"))]
        tips += [alt.Tooltip("law:N", title="closed form"), alt.Tooltip("verified:N")]
        points = alt.Chart(data).mark_point(filled=False, size=42, opacity=1, strokeWidth=1.4)
        layers.append(points.encode(x=x, y=at_field(y, "measured"), color=colour, shape=shape, tooltip=tips))
    return alt.LayerChart(layer=layers, height=300)


def table(frame: pd.DataFrame) -> Table:
    """Return the counts as a table, one row per circuit and number of bits; deviations from closed forms are marked.

    Args:
        frame: from `leadline.theory.parity.counts`.
    """
    rows = []
    for (bits, name), part in frame.groupby(["bits", "circuit"], sort=False):
        row: dict[str, object] = {"bits": bits, "circuit": FAMILIES[str(name)].title}
        for entry in each(part):
            row[entry.quantity] = None if pd.isna(entry.measured) else int(entry.measured)
            row[f"{entry.quantity}_formula"] = int(entry.formula)
        first = part.iloc[0]
        wrong = [first["wrong_gates"], first["wrong_network"]]
        row |= {"verified": first["verified"], "wrong": None if pd.isna(wrong).any() else int(sum(wrong))}
        rows.append(row)
    columns = (
        Column("Bits", ("bits",), str),
        Column("Circuit", ("circuit",), str, numeric=False),
        *(Column(title, (name, f"{name}_formula"), _format_count) for name, title in QUANTITIES.items()),
        Column("Verified on", ("verified", "wrong"), _format_verified, numeric=False),
    )
    return Table("parity", "Parity circuits, counted as built", columns, tuple(rows), NOTE)


def _format_count(measured: int | None, formula: int) -> str:
    if measured is None:
        return f"({formula:,})"
    return f"{measured:,}" if measured == formula else f"{measured:,} ≠ {formula:,}"


def _format_verified(words: str, wrong: int | None) -> str:
    return f"{words}, {wrong:,} wrong" if wrong else words


# --- drawings

_STEP, _RADIUS, _MARGIN, _MOST_GATES = 44.0, 17.0, 24.0, 24
_STYLES = {  # the word in a gate, its ground and its edge: tints and shades of Okabe & Ito's colours
    And: ("AND", "#dcecf7", "#0072B2"),
    Or: ("OR", "#fdeecf", "#b97f00"),
    Xor: ("XOR", "#dbf1e8", "#008a64"),
    Threshold: ("≥", "#f7e4ee", "#b05a8b"),
}


@dataclass(frozen=True)
class _Spot:
    """Position of an input or gate, where wires start."""

    x: float
    y: float
    radius: float


def draw(form: Circuit | Recurrence) -> str:
    """Return a drawing of a circuit as SVG, inputs at the left; a recurrence is drawn unrolled. NOTs are dashed wires.

    Raises:
        SpecError: more gates than can be told apart in a drawing, or a recurrence whose cell has more than one gate.
    """
    measured = size(form)
    if measured.gates > _MOST_GATES:
        raise SpecError(
            f"drawing of circuit {form.name!r}: {measured.gates:,} gates, of which at most {_MOST_GATES} can be told"
            " apart; draw it with fewer bits"
        )
    if isinstance(form, Recurrence):
        shapes, width, height, notes = _draw_recurrence(form)
        described = f"{form.bits} steps of one cell."
    else:
        shapes, width, height, notes = _draw_gates(form)
        described = " ".join(_describe(form))
    family = FAMILIES.get(form.name)
    title = f"Parity of {form.bits} bits: {family.title}" if family else form.name
    costs = f"{plural(measured.gates, 'gate')}, {plural(measured.wires, 'wire')}, depth {measured.depth}."
    return _page(title, shapes, width, height, [costs, *notes], f"{title}. {costs} {described}")


def _draw_gates(circuit: Circuit) -> tuple[str, float, float, list[str]]:
    """Return the SVG of a circuit, its width and height, and notes on its lines."""
    known = levels(circuit)
    drawn = [place for place, gate in enumerate(circuit.gates, circuit.bits) if not isinstance(gate, Not)]
    columns = [[place for place in drawn if known[place] == level] for level in range(1, max(known) + 1)]
    height = _STEP * max(circuit.bits, *map(len, columns))
    crowded = max(sum(len(circuit.gates[place - circuit.bits].inputs) for place in column) for column in columns)
    apart = 96 + 4.0 * min(crowded, 32)
    spots = {i: _Spot(0, height * (i + 0.5) / circuit.bits, 12) for i in range(circuit.bits)}
    source = {i: (i, 1) for i in range(circuit.bits)}  # the spot that a wire starts from, and its sign
    for place, gate in enumerate(circuit.gates, circuit.bits):
        start, sign = source[gate.inputs[0]]
        source[place] = (start, -sign) if isinstance(gate, Not) else (place, 1)
    for level, column in enumerate(columns, 1):
        wanted = {}
        for place in column:
            starts = [spots[source[wire][0]].y for wire in circuit.gates[place - circuit.bits].inputs]
            wanted[place] = sum(starts) / len(starts)
        for place, y in _space_out(wanted, height).items():
            spots[place] = _Spot(level * apart, y, _RADIUS)
    lines, gates, negative, weighted = "", "", False, False
    for place in drawn:
        gate = circuit.gates[place - circuit.bits]
        weights = gate.weights if isinstance(gate, Threshold) else (1,) * len(gate.inputs)
        for wire, weight in zip(gate.inputs, weights, strict=True):
            start, sign = source[wire]
            negative |= sign * weight < 0
            weighted |= isinstance(gate, Threshold) and weight < 0
            lines += _line(spots[start], spots[place], sign * weight)
        gates += _gate(gate, spots[place], _term(circuit, place))
    inputs = "".join(_input(spots[i], f"x{i + 1}") for i in range(circuit.bits))
    end = spots[source[len(known) - 1][0]]
    out = _output(end, source[len(known) - 1][1])
    notes = ["A dashed wire has the weight −1." if weighted else "A dashed wire is negated."] if negative else []
    if any(_term(circuit, place) for place in drawn):
        notes.append("Digits in an AND: the input on which it is 1.")
    return lines + inputs + gates + out, max(spot.x for spot in spots.values()) + 70, height, notes


def _space_out(wanted: dict[int, float], height: float) -> dict[int, float]:
    """Return positions close to the wanted ones, at least one step apart and within the height of the drawing."""
    order = sorted(wanted, key=lambda place: (wanted[place], place))
    placed: list[float] = []
    for place in order:
        placed.append(max(wanted[place], placed[-1] + _STEP) if placed else wanted[place])
    shift = sum(wanted.values()) / len(order) - sum(placed) / len(placed)
    shift = min(max(shift, _STEP / 2 - placed[0]), height - _STEP / 2 - placed[-1])
    return {place: y + shift for place, y in zip(order, placed, strict=True)}


def _term(circuit: Circuit, place: int) -> str:
    """Return the input for which an AND of all bits is 1, such as 0111; empty for other gates."""
    gate = circuit.gates[place - circuit.bits]
    if not isinstance(gate, And):
        return ""
    values: dict[int, str] = {}
    for wire in gate.inputs:
        start = None if wire < circuit.bits else circuit.gates[wire - circuit.bits]
        if start is None:
            values[wire] = "1"
        elif isinstance(start, Not) and start.input < circuit.bits:
            values[start.input] = "0"
        else:
            return ""
    return "".join(values[i] for i in range(circuit.bits)) if len(values) == circuit.bits else ""


def _draw_recurrence(recurrence: Recurrence) -> tuple[str, float, float, list[str]]:
    """Return the SVG of a recurrence, unrolled from left to right with the bits below, its size and notes."""
    gate, *more = recurrence.cell.gates
    if more:
        raise SpecError(
            f"drawing of recurrence {recurrence.name!r}: its cell has {len(recurrence.cell.gates)} gates, and a cell of"
            " one gate can be drawn; draw the cell"
        )
    y, below, apart = 20.0, 84.0, 68.0
    state = _Spot(0, y, 12)
    shapes = _input(state, "0")
    for step in range(1, recurrence.bits + 1):
        here, bit = _Spot(step * apart, y, _RADIUS), _Spot(step * apart, below, 12)
        shapes += _line(state, here, 1) + _line(bit, here, 1) + _gate(gate, here, "") + _input(bit, f"x{step}")
        state = here
    notes = [f"One cell with one set of weights, applied {plural(recurrence.bits, 'time')}; its state starts at 0."]
    return shapes + _output(state, 1), state.x + 70, below + 16, notes


def _line(start: _Spot, end: _Spot, weight: int) -> str:
    far = math.hypot(end.x - start.x, end.y - start.y)
    x, y = (end.x - start.x) / far, (end.y - start.y) / far
    a, b = (start.x + x * start.radius, start.y + y * start.radius), (end.x - x * end.radius, end.y - y * end.radius)
    colour, dashes = (FLOW, None) if weight > 0 else (AROUND, "5 3")
    shape = path(["M", *a, "L", *b], colour, 1.2, stroke_dasharray=dashes, stroke_opacity=0.8, class_="wire")
    if abs(weight) == 1:
        return shape
    words = str(weight).replace("-", "−")
    return shape + label((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - 4, words, 9.5, AROUND_TEXT if weight < 0 else INK)


def _gate(gate: Gate, spot: _Spot, term: str) -> str:
    word, ground, edge = _STYLES[type(gate)]
    if isinstance(gate, Threshold):
        word = f"≥ {gate.threshold}".replace("-", "−")
    attributes_ = attributes(cx=spot.x, cy=spot.y, r=spot.radius, fill=ground, stroke=edge, stroke_width=1.4)
    shapes = f"<circle{attributes_}/>"
    shapes += label(spot.x, spot.y + (-1.5 if term else 3.2), word, 9, INK, font_weight=600)
    shapes += label(spot.x, spot.y + 8, term, 8, MUTED) if term else ""
    return group(shapes, title=f"{word} of {plural(len(gate.inputs), 'wire')}", class_="gate")


def _input(spot: _Spot, name: str) -> str:
    circle = attributes(cx=spot.x, cy=spot.y, r=spot.radius, fill=PAPER, stroke=MUTED, stroke_width=1.2)
    return group(f"<circle{circle}/>" + label(spot.x, spot.y + 3.4, name, 10), class_="input")


def _output(spot: _Spot, sign: int) -> str:
    start, end = spot.x + spot.radius, spot.x + spot.radius + 26
    colour, dashes = (FLOW, None) if sign > 0 else (AROUND, "5 3")
    return path(["M", start, spot.y, "H", end - 5], colour, stroke_dasharray=dashes) + arrow(
        end, spot.y, "right", colour
    )


def _describe(circuit: Circuit) -> Iterator[str]:
    known = levels(circuit)
    yield f"Inputs x1 to x{circuit.bits}."
    for level in range(1, max(known) + 1):
        kinds = [
            _STYLES[type(gate)][0] if not isinstance(gate, Threshold) else "threshold"
            for place, gate in enumerate(circuit.gates, circuit.bits)
            if known[place] == level and not isinstance(gate, Not)
        ]
        yield f"Level {level}: {', '.join(f'{kinds.count(kind)} {kind}' for kind in dict.fromkeys(kinds))}."


def _page(title: str, shapes: str, width: float, height: float, notes: Sequence[str], described: str) -> str:
    wide = max(width, length(title, 14, bold=True), 300) + 2 * _MARGIN
    lines = [line for note in notes for line in wrap(note, wide - 2 * _MARGIN, 11)]
    top = _MARGIN + 30
    tall = top + height + 24 + 15 * len(lines)
    content = label(_MARGIN, _MARGIN + 8, title, 14, INK, "start", font_weight=600)
    content += group(shapes, (wide - width) / 2 + 18, top)
    content += "".join(
        label(_MARGIN, top + height + 24 + 15 * i, line, 11, MUTED, "start") for i, line in enumerate(lines)
    )
    opening = attributes(
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        width=wide,
        height=tall,
        viewBox=f"0 0 {number(wide)} {number(tall)}",
        font_family=FONT,
    )
    said = f"<title>{escape_text(title)}</title><desc>{escape_text(described)}</desc>"
    return f"<svg{opening}>{said}{box(0, 0, wide, tall, fill=PAPER)}{content}</svg>\n"
