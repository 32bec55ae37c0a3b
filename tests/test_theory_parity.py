"""Parity circuits against sum(x) mod 2, closed forms, a slow evaluation of gates, and what is known of parity."""

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.errors import SpecError
from leadline.reports.charts.chart import LIGHT, theme
from leadline.text.tables import to_csv, to_latex, to_markdown
from leadline.theory.circuits import (
    And,
    Circuit,
    Gate,
    Not,
    Or,
    Recurrence,
    Size,
    Threshold,
    ThresholdNetwork,
    Xor,
    evaluate,
    levels,
    network,
    network_size,
    size,
)
from leadline.theory.parity import (
    FAMILIES,
    NOTE,
    QUANTITIES,
    all_inputs,
    chain,
    circuit,
    counts,
    dnf,
    parity,
    recurrent,
    threshold,
    tree,
    verify,
)
from leadline.theory.parity_figures import draw, figures, table

NAMES = tuple(FAMILIES)


@cache
def _counted() -> pd.DataFrame:
    return counts([2, 3, 4, 5, 8, 9, 17], beyond=True)


def _slow(form: Circuit, bits: tuple[int, ...]) -> int:
    """One input, one gate at a time, in whole numbers."""
    wires = list(bits)
    for gate in form.gates:
        read = [wires[wire] for wire in gate.inputs]
        match gate:
            case And():
                wires.append(int(all(read)))
            case Or():
                wires.append(int(any(read)))
            case Not():
                wires.append(1 - read[0])
            case Xor():
                wires.append(sum(read) % 2)
            case Threshold():
                wires.append(int(sum(w * x for w, x in zip(gate.weights, read, strict=True)) >= gate.threshold))
    return wires[-1]


@st.composite
def circuits(draw_: Callable) -> Circuit:
    bits = draw_(st.integers(1, 5))
    gates: list[Gate] = []
    for place in range(bits, bits + draw_(st.integers(1, 9))):
        wires = tuple(draw_(st.lists(st.integers(0, place - 1), min_size=1, max_size=4)))
        kind = draw_(st.sampled_from([And, Or, Not, Xor, Threshold]))
        if kind is Not:
            gates.append(Not(wires[0]))
        elif kind is Threshold:
            weights = tuple(draw_(st.integers(-5, 5)) for _ in wires)
            gates.append(Threshold(wires, weights, draw_(st.integers(-9, 9))))
        else:
            gates.append(kind(wires))
    return Circuit("any", bits, tuple(gates))


# --- gate lists and threshold networks


@settings(deadline=None, max_examples=150)
@given(circuits())
def test_any_circuit_evaluates_as_gate_by_gate_and_as_its_threshold_network(form: Circuit) -> None:
    inputs = all_inputs(form.bits)
    expected = [_slow(form, tuple(row)) for row in inputs.tolist()]
    assert evaluate(form, inputs).tolist() == expected
    assert network(form)(torch.from_numpy(inputs).float()).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(circuits())
def test_a_units_layer_is_past_every_layer_it_reads(form: Circuit) -> None:
    built = ThresholdNetwork(form)
    start = form.bits
    for layer in built.layers:
        reads = layer.reads
        assert (reads.stop - 1 if isinstance(reads, slice) else int(reads.max())) < start
        start += len(layer.threshold)
    assert start == form.bits + built.units
    counted = sum(not isinstance(gate, Not) for gate in form.gates)
    xors = sum(len(gate.inputs) for gate in form.gates if isinstance(gate, Xor))
    last, nots = form.bits + len(form.gates) - 1, 0
    while last >= form.bits and isinstance(gate := form.gates[last - form.bits], Not):
        last, nots = gate.input, nots + 1
    assert built.units == counted + xors + nots % 2  # an output that is negated takes a unit


def test_majority_is_a_threshold_gate() -> None:
    form = Circuit("majority", 5, (Threshold((0, 1, 2, 3, 4), (1,) * 5, 3),))
    inputs = all_inputs(5)
    assert (evaluate(form, inputs) == (inputs.sum(1) >= 3)).all()


def test_no_single_threshold_unit_is_xor_so_that_its_gadget_has_two_layers() -> None:
    inputs = all_inputs(2)
    for weights in itertools.product(range(-3, 4), repeat=2):
        for least in range(-6, 7):
            unit = Circuit("unit", 2, (Threshold((0, 1), weights, least),))
            assert (evaluate(unit, inputs) != parity(inputs)).any()
    gadget = network_size(network(Circuit("xor", 2, (Xor((0, 1)),))))
    assert (gadget.layers, gadget.units, gadget.wires) == (2, 3, 6)


def test_inputs_beyond_one_pass_and_no_inputs_at_all() -> None:
    form = tree(5)
    many = np.random.default_rng(0).integers(0, 2, (70_001, 5), np.uint8)
    assert (evaluate(form, many) == parity(many)).all()
    assert evaluate(form, many[:0]).shape == (0,)
    wide = dnf(12)  # whose wires take more than one pass at so many inputs
    rows = np.random.default_rng(1).integers(0, 2, (800_000, 12), np.uint8)
    assert (evaluate(wide, rows[:3]) == parity(rows[:3])).all()
    assert (evaluate(wide, rows) == parity(rows)).all()


def test_networks_are_exact_in_float64_too_and_let_gradients_pass_by() -> None:
    x = torch.from_numpy(all_inputs(6))
    for name in NAMES:
        built = network(circuit(name, 6))
        assert (built.double()(x.double()).numpy() == parity(x.numpy())).all()
        assert not any(parameter.requires_grad for parameter in built.parameters())
        assert built(x.double().requires_grad_()).shape == (64,)


def test_what_a_network_gives_does_not_keep_its_wires_in_memory() -> None:
    given_ = network(dnf(8))(torch.from_numpy(all_inputs(8)).float())
    assert given_.untyped_storage().nbytes() == 256 * 4


# --- the circuits of parity


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_circuit_and_network_is_parity_on_all_inputs_to_12_bits_and_on_random_ones_beyond(name: str) -> None:
    for bits in [*range(2, 13), 17, 40]:
        if bits > FAMILIES[name].most:
            continue
        form = circuit(name, bits)
        checks = [verify(form, bits), verify(network(form), bits)]
        assert [check.wrong for check in checks] == [0, 0]
        assert {(check.inputs, check.complete) for check in checks} == {
            (2**bits, True) if bits <= 16 else (2048, False)
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_inputs_of_16_bits(name: str) -> None:
    check = verify(circuit(name, 16), 16)
    assert (check.inputs, check.complete, check.wrong, check.words) == (65_536, True, 0, "all 65,536 inputs")


def test_verification_finds_what_is_wrong() -> None:
    whole = dnf(8)
    *gates, last = whole.gates
    short = replace(whole, gates=(*gates[:-1], Or(last.inputs[:-1])))
    assert verify(short, 8).wrong == verify(network(short), 8).wrong == 1  # each term is the only one for its input
    assert verify(replace(tree(17), gates=(*tree(17).gates[:-1], And(tree(17).gates[-1].inputs))), 17).wrong > 500
    off = network(threshold(6))
    off.layers[0].threshold[2] += 1
    # at least 3 is now asked as at least 4, so only inputs of exactly 3 ones are wrong
    assert verify(off, 6).wrong == 20


def test_random_inputs_are_the_seeds() -> None:
    broken = replace(chain(20), gates=(*chain(20).gates[:-1], Or(chain(20).gates[-1].inputs)))
    assert verify(broken, 20, 1) == verify(broken, 20, 1)
    assert len({verify(broken, 20, seed).wrong for seed in range(8)}) > 1


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_no_dnf_of_parity_has_fewer_terms(bits: int) -> None:
    """Of all 3^n terms only those of all n literals imply parity, and each covers one input of 2^(n-1)."""
    inputs = all_inputs(bits)
    covers = []
    for term in itertools.product((0, 1, None), repeat=bits):
        fits = np.all([inputs[:, i] == value for i, value in enumerate(term) if value is not None], axis=0)
        if (parity(inputs)[np.broadcast_to(fits, len(inputs))] == 1).all():
            assert None not in term
            covers.append(int(fits.sum()))
    assert covers == [1] * 2 ** (bits - 1)
    assert sum(isinstance(gate, And) for gate in dnf(bits).gates) == len(covers)


def test_a_recurrent_cells_state_is_the_parity_so_far_and_its_weights_are_shared() -> None:
    inputs = all_inputs(7)
    for steps in range(2, 8):
        so_far = inputs[:, :steps]
        assert (evaluate(recurrent(steps), so_far) == so_far.sum(1) % 2).all()
    few, many = network(recurrent(2)), network(recurrent(500))
    assert [(k, v.tolist()) for k, v in few.state_dict().items()] == [
        (k, v.tolist()) for k, v in many.state_dict().items()
    ]
    assert network_size(many).parameters == 9
    assert network_size(many).layers == 1000


def test_a_recurrence_counts_its_depth_along_the_longest_way() -> None:
    # the state passes one gate a step, the bit two: 2 + 1 + 1, not 3 x 2
    cell = Circuit("cell", 2, (Or((1, 1)), Xor((0, 2))))
    assert size(Recurrence("slow", cell, 3)) == Size(gates=6, wires=12, depth=4, fan_in=2)


def test_the_tree_is_balanced_and_nots_are_free() -> None:
    for bits in (2, 3, 5, 8, 33, 1024):
        assert size(tree(bits)) == Size(bits - 1, 2 * (bits - 1), int(np.ceil(np.log2(bits))), 2)
    form = Circuit("nots", 1, (Not(0), Not(1), And((2,)), Not(3)))
    assert size(form) == Size(1, 1, 1, 1)
    assert levels(form) == [0, 0, 0, 1, 1]


# --- counts


@pytest.mark.slow
def test_every_count_is_on_its_closed_form() -> None:
    frame = _counted()
    assert len(frame) == 7 * len(NAMES) * len(QUANTITIES)
    assert frame["measured"].notna().all()
    assert (frame["measured"] == frame["formula"]).all()
    assert frame["wrong_gates"].eq(0).all() and frame["wrong_network"].eq(0).all()
    at = frame.set_index(["bits", "circuit", "quantity"])["measured"]
    assert (at[4, "dnf", "gates"], at[4, "tree", "gates"], at[4, "threshold", "gates"]) == (9, 3, 5)
    assert (at[17, "dnf", "gates"], at[17, "tree", "depth"], at[17, "recurrent", "parameters"]) == (65_537, 5, 9)


def test_closed_forms_are_what_their_text_says() -> None:
    for family in FAMILIES.values():
        for law in family.laws.values():
            text = law.text.replace("^", "**").replace("ceil(log2 n)", "ceil(log2(n))")
            text = re.sub(r"(?<![\w)])(\d+)(?=[n(c])", r"\1*", text).replace("n(", "n*(")
            text = re.sub(r"\) (?=\d)", ")*", re.sub(r"(\d) (?=ceil)", r"\1*", text))
            for n in (2, 3, 7, 16, 33):
                assert law.value(n) == eval(text, {"n": n, "ceil": np.ceil, "log2": np.log2}), (text, n)


def test_circuits_too_large_to_build_stand_with_their_closed_forms_alone() -> None:
    frame = counts([21], beyond=True).set_index("circuit")
    assert frame.loc["dnf", "measured"].isna().all()
    assert set(frame.loc["dnf", "verified"]) == {"not built, closed form only"}
    assert frame.loc["tree", "measured"].notna().all()
    assert frame.loc["dnf"].set_index("quantity").loc["gates", "formula"] == 2**20 + 1
    assert (counts([56], beyond=True)["formula"] > 0).all()


# --- figures, table, drawings


@pytest.mark.slow
def test_figures_draw_what_was_measured_on_closed_forms() -> None:
    drawn = figures(_counted())
    assert [figure.name for figure in drawn] == ["parity-gates", "parity-units"]
    for figure in drawn:
        assert "all inputs for 2 to 9 bits, on random inputs for 17 bits: none was wrong" in figure.caption
        spec = figure.chart().to_dict()
        svg = vl_convert.vegalite_to_svg({**spec, "config": theme(LIGHT, standalone=True)})
        for word in ("DNF", "XOR tree", "recurrent XOR cell", "log scale"):
            assert word in svg
        marks = svg.count('aria-roledescription="point"')
        assert marks == 2 * 7 * len(NAMES)
    assert "XOR tree, gates: 16" in drawn[0].description


def test_circuits_of_more_bits_than_asked_are_listed_and_not_built() -> None:
    frame = counts([3, 4, 21], built_to=3)  # none of those that are too large is to be built
    assert set(frame.dropna(subset="measured")["bits"]) == {3}
    assert (frame.loc[frame["bits"].gt(3), "verified"] == "not built, closed form only").all()
    assert len(frame[frame["bits"].eq(21)]) == len(frame[frame["bits"].eq(3)])


@pytest.mark.slow
def test_figures_say_that_a_circuit_is_wrong_or_was_not_built() -> None:
    frame = _counted()
    off = frame["circuit"].eq("tree") & frame["bits"].eq(5)
    frame = frame.assign(wrong_gates=frame["wrong_gates"].mask(off, 1))
    assert figures(frame)[0].caption.endswith(": 1 wrong answer.")
    only = counts([21, 56], beyond=True).query("circuit == 'dnf'")
    figure = figures(only)[0]
    assert "No circuit was built." in figure.caption
    vl_convert.vegalite_to_svg({**figure.chart().to_dict(), "config": theme(LIGHT, standalone=True)})


def test_the_table_has_a_row_per_circuit_and_marks_what_is_off() -> None:
    frame = counts([4, 21], beyond=True)
    shown = table(frame).shown
    assert len(shown) == 2 * len(NAMES)
    assert shown[0][:5] == ("4", "DNF", "9", "40", "2") and shown[0][-1] == "all 16 inputs"
    assert shown[5][2] == "(1,048,577)" and shown[5][-1] == "not built, closed form only"
    assert table(frame).note == NOTE and "n log n" in NOTE
    for write in (to_csv, to_markdown, to_latex):
        assert "XOR tree" in write(table(frame))
    off = frame.assign(measured=frame["measured"].add(1), wrong_gates=frame["wrong_gates"].add(2))
    first = table(off).shown[0]
    assert first[2] == "10 ≠ 9" and first[-1] == "all 16 inputs, 2 wrong"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [2, 4, 5])
def test_a_drawing_has_every_gate_and_wire(name: str, bits: int) -> None:
    form = circuit(name, bits)
    root = ET.fromstring(draw(form))
    classes = [element.get("class") for element in root.iter()]
    counted = size(form)
    assert (classes.count("gate"), classes.count("wire")) == (counted.gates, counted.wires)
    assert classes.count("input") == bits + (name == "recurrent")
    negated = [e for e in root.iter() if e.get("class") == "wire" and e.get("stroke-dasharray")]
    zeros = sum(bits - row.sum() for row in all_inputs(bits) if row.sum() % 2)
    assert len(negated) == {"dnf": zeros, "threshold": bits // 2}.get(name, 0)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 < float(circle.get("cx", -1)) + 60 < width + 60
        assert 0 < float(circle.get("cy", -1)) < height
    assert draw(form) == draw(circuit(name, bits))


def test_a_drawing_says_the_inputs_of_its_terms_and_its_weights() -> None:
    text = "".join(ET.fromstring(draw(dnf(4))).itertext())
    for term in ("0001", "0010", "0100", "0111", "1000", "1011", "1101", "1110"):
        assert term in text
    assert "9 gates, 40 wires, depth 2." in text
    odd = Circuit("odd <gate>", 2, (Threshold((0, 1), (3, -2), -1), Not(2)))
    shown = draw(odd)
    assert "odd &lt;gate&gt;" in shown and "−2" in shown and "≥ −1" in shown and "1 gate, 2 wires, depth 1." in shown


def test_gates_of_one_column_do_not_touch() -> None:
    for form in (dnf(5), tree(25), chain(12), Circuit("same", 2, tuple(Xor((0, 1)) for _ in range(5)))):
        root = ET.fromstring(draw(form))
        places = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter() if c.tag.endswith("circle")]
        for (x0, y0), (x1, y1) in itertools.combinations(places, 2):
            assert (x0 - x1) ** 2 + (y0 - y1) ** 2 >= 34**2


# --- bad input


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: dnf(21), "parity of 21 bits as a DNF: 2^20 terms are too many to build; at most 20 bits"),
        (lambda: tree(1025), "parity of 1025 bits, tree: at most 1,024 bits"),
        (lambda: chain(1), "parity of 1 bits: give a whole number, 2 or more"),
        (lambda: threshold(2.0), "parity of 2.0 bits"),
        (lambda: recurrent(True), "parity of True bits"),
        (lambda: circuit("tre", 4), "unknown parity circuit 'tre'; did you mean 'tree'?"),
        (lambda: counts([]), "parity: no number of bits"),
        (lambda: counts([4, 21]), "parity of 21 bits as a DNF"),
        (lambda: counts([57], beyond=True), "parity of 57 bits: give whole numbers from 2 to 56"),
        (lambda: verify(tree(4), 5), "verification with 5 bits: the circuit reads 4"),
        (lambda: evaluate(tree(4), np.zeros((3, 5), np.uint8)), "inputs of shape (3, 5)"),
        (lambda: evaluate(tree(4), np.full((3, 4), 2, np.uint8)), "give 0 and 1 as uint8, 4 columns"),
        (lambda: evaluate(tree(4), np.zeros((3, 4))), "type float64"),
        (lambda: Circuit("none", 2, ()), "circuit 'none': 2 inputs and 0 gates"),
        (
            lambda: Circuit("early", 2, (And((0, 2)),)),
            "circuit 'early', gate 0: reads wire 2, but only wires 0 to 1 are defined",
        ),
        (lambda: Circuit("below", 2, (And((0, -1)),)), "gate 0: reads wire -1"),
        (lambda: Circuit("empty", 2, (Or(()),)), "circuit 'empty', gate 0: reads no wire"),
        (lambda: Threshold((0, 1), (1,), 1), "1 weights for 2 wires"),
        (lambda: Threshold((0,), (0.5,), 1), "give whole numbers"),
        (lambda: Threshold((0,), (2**24,), 1), "over 8,388,608"),
        (lambda: Recurrence("wide", tree(3), 4), "a cell that reads 3 bits"),
        (lambda: network(Circuit("x", 5000, (Xor(tuple(range(5000))),))), "has 25,005,000 wires, over 16,777,216"),
        (
            lambda: network(Circuit("many", 8200, tuple(And((i,)) for i in range(8200)))),
            "layer 1: 8,200 units that read",
        ),
        (lambda: draw(dnf(6)), "33 gates, of which at most 24"),
        (lambda: draw(Recurrence("two", Circuit("cell", 2, (Not(0), Xor((1, 2)))), 3)), "a cell of one gate"),
    ],
)
def test_bad_input_is_one_clear_line(wrong: Callable[[], object], says: str) -> None:
    with pytest.raises(SpecError, match=re.escape(says)) as caught:
        wrong()
    assert "\n" not in str(caught.value)
