"""How intervals narrowed as seeds were added: what the verdict keeps of it, and the figure that shows it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.analysis.stats import Outcome, cut
from leadline.analysis.stats.sequential import interval_at_any_time
from leadline.analysis.verdict import ContrastFinding, Findings, analyze, to_json
from leadline.analysis.verdict.decisions import Judgement
from leadline.analysis.verdict.findings import InterimAnalysis, SequentialAnalysis
from leadline.reports.charts import chart
from leadline.reports.charts.chart import DECISIONS, LIGHT, theme
from leadline.reports.charts.interim import SHOWN_PANELS, SHOWN_SEEDS, interim_frame, interim_intervals
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.rounds import Course, look

IMAGES = 500
LOST = "diverged"


def study_of(contrasts: Sequence[Sequence[str]] = (("a", "b"),), **decide: Any) -> ExpandedStudy:
    arms = {name: {"network": "comparative-cnn", "training": {"batch_size": ord(name)}} for name in "abcd"}
    spec = {"name": "toy", "arms": arms, "contrasts": list(map(list, contrasts)), "data": {"test": IMAGES}}
    return expand(parse(StudySpec, {**spec, "decide": {"margin": 0.5, "max_seeds": 12, **decide}}))


def shown(study: ExpandedStudy, errors: Mapping[str, Sequence[float | str]], **seeds: int) -> Findings:
    """What a study shows whose trials have these test errors, or did not get to one; the arms have these seeds."""
    study = study.resolve(drawn={arm.name: seeds.get(arm.name, len(errors[arm.name])) for arm in study.arms})
    trials, records = [], []
    for arm, trial in study.trials():
        value = errors[arm.name][trial.seed]
        row = {"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        state = value if isinstance(value, str) else "finished"
        trials.append({**row, "factors": {}, "state": state, "seconds": 1.0})
        end = {"step": 1, "epoch": 1, "split": "final-test", "name": "error"}
        records += [{**row, **end, "value": value}] if state == "finished" else []
    columns = ["trial", "arm", "base", "seed", "step", "epoch", "split", "name", "value"]
    return analyze(study, pd.DataFrame(trials), pd.DataFrame(records, columns=columns), {})


def until_decided(study: ExpandedStudy, errors: Mapping[str, Sequence[float | str]]) -> Findings:
    """What a study shows at its end, round after round."""
    seeds: Mapping[str, int] = dict.fromkeys("abcd", 3)
    while not (last := (findings := shown(study, errors, **seeds)).rounds[-1]).looks:
        seeds = last.seeds
    return findings


def bars(panel: chart.Panel) -> dict[str, list[dict[str, Any]]]:
    """The rows of a panel's bars by their style: `seed` between looks, `interval` at them."""
    spec = json.loads(json.dumps(panel.chart.to_dict(), allow_nan=False))
    layers = [layer for layer in spec["layer"] if layer["encoding"].get("y2") and "x" in layer["encoding"]]
    return {layer["mark"]["style"]: json.loads(spec["datasets"][layer["data"]["name"]]) for layer in layers}


DRAW = np.random.default_rng(5)
CLOSE = {
    "a": [*(10 + 0.2 * DRAW.integers(0, 12, 12))],
    "b": [*(10 + 0.2 * DRAW.integers(0, 12, 12))],
    "c": [*(40 + 0.2 * DRAW.integers(0, 12, 12))],
    "d": [10.0] * 12,
}
outcomes = st.lists(
    st.one_of(st.sampled_from([LOST, "waiting"]), st.integers(0, 40).map(lambda steps: steps * 100 / IMAGES)),
    min_size=12,
    max_size=12,
)


# --- what the verdict keeps


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(outcomes, outcomes, st.integers(2, 12), st.sampled_from([None, 3, 30]))
def test_the_course_is_what_a_look_at_each_number_of_seeds_shows_to_the_bit(
    a: list[float | str], b: list[float | str], first: int, planned: int | None
) -> None:
    study = study_of((("a", "b"), ("a", "c")), first=first, planned=planned, confidence=0.9)
    contrast = shown(study, {**CLOSE, "a": a, "b": b}).contrasts[0]
    looks = contrast.sequential
    assert looks is not None and [one.seeds for one in looks.interim] == list(range(1, looks.seeds + 1))
    known = dict(zip(contrast.seeds, contrast.differences, strict=True))  # seeds are 0, 1, 2, ... here
    truth = Course(
        "a",
        "b",
        0.5,
        contrast.resolution,
        tuple(Outcome(known.get(seed), a[seed] == "diverged", b[seed] == "diverged") for seed in range(looks.seeds)),
        largest=100.0,
    )
    assert contrast.resolution == 100 / IMAGES
    for one in looks.interim:
        (low, high), decision = look(study, truth, one.seeds)
        assert (one.low, one.high, one.decision, one.pairs) == (low, high, decision, len(truth.first(one.seeds)))
        if one.pairs:
            planned_over = planned or 12
            found = interval_at_any_time(truth.first(one.seeds), looks.of_each, contrast.resolution, planned_over)
            assert (one.low, one.high, one.difference) == (*cut((found.low, found.high), 100.0), found.mean)
        else:
            assert one.difference is None
    for before, after in zip(looks.interim, looks.interim[1:], strict=False):
        assert before.low <= after.low <= after.high <= before.high
    if looks.interim:
        last = looks.interim[-1]
        assert (last.low, last.high, last.decision) == (looks.low, looks.high, contrast.decision)
        assert (contrast.paired and contrast.paired.difference) == last.difference
        if contrast.paired and contrast.paired.ci95:
            assert contrast.paired.ci95 == (last.low, last.high)


def test_looks_are_where_rounds_ended_until_it_was_decided() -> None:
    study = study_of((("a", "b"), ("a", "c")), step=2)
    close, clear = until_decided(study, CLOSE).contrasts
    assert close.sequential and clear.sequential and clear.decision == "better" and close.decision == "undecided"
    assert [one.seeds for one in close.sequential.interim if one.looked] == [3, 5, 7, 9, 11, 12]
    taken = [one for one in clear.sequential.interim if one.looked]
    assert [one.seeds for one in taken] == [3] and clear.sequential.taken == 1 and taken[0].decision == "better"
    # both arms of the first go on for the second's sake: nothing more was to be decided by it
    shared = study_of((("a", "c"), ("a", "b"), ("c", "d")), step=2)
    first, _, other = until_decided(shared, {**CLOSE, "d": [40.0] * 12}).contrasts
    assert (
        first.sequential
        and other.sequential
        and first.sequential.seeds == other.sequential.seeds > 3
        and first.sequential.taken == 1
    )
    assert [one.seeds for one in first.sequential.interim if one.looked] == [3]


def test_a_round_half_way_has_seeds_beyond_its_last_look() -> None:
    errors = {**CLOSE, "a": [*CLOSE["a"][:4], "running", *CLOSE["a"][5:]]}
    (contrast,) = shown(study_of(step=2), errors, a=5, b=5, c=3, d=3).contrasts
    assert contrast.sequential and [(one.seeds, one.looked) for one in contrast.sequential.interim[2:]] == [
        (3, True),
        (4, False),
    ]


def test_json_has_the_looks_that_were_taken() -> None:
    findings = until_decided(study_of(step=4), CLOSE)
    looks = to_json(findings)["contrasts"][0]["looks"]
    assert "interim" not in looks and [one["seeds"] for one in looks["at"]] == [3, 7, 11, 12]
    assert (looks["at"][-1]["low"], looks["at"][-1]["high"]) == (looks["low"], looks["high"])
    assert looks["at"][0].keys() == {"verdict", "seeds", "pairs", "difference", "low", "high"}
    lost = {"a": [LOST] * 3, "b": [5.0] * 3, "c": [5.0] * 3, "d": [5.0] * 3}
    (empty,) = to_json(shown(study_of(), lost))["contrasts"][0]["looks"]["at"]
    assert empty["low"] is empty["high"] is empty["difference"] is None and empty["pairs"] == 0


# --- the figure


@pytest.mark.slow
def test_every_bar_is_an_interval_of_the_verdict() -> None:
    findings = until_decided(study_of((("a", "b"), ("a", "c")), step=3), {**CLOSE, "b": [*CLOSE["b"][:4], LOST] * 3})
    figure = interim_intervals(findings)
    assert [panel.title for panel in figure.panels] == ["a − b: undecided at 12 seeds", "a − c: better at 3 seeds"]
    for contrast, panel in zip(findings.contrasts, figure.panels, strict=True):
        assert contrast.sequential is not None
        drawn = bars(panel)
        rows = sorted(drawn.get("seed", []) + drawn["interval"], key=lambda row: int(row["seeds"]))
        finite = [one for one in contrast.sequential.interim if math.isfinite(one.low)]
        assert [row["seeds"] for row in rows] == [one.seeds for one in finite] and finite[0].seeds == 2
        assert [row["pairs"] for row in rows] == [one.pairs for one in finite]
        for row, one in zip(rows, finite, strict=True):
            ends = (row["low"], row["high"], row["difference"])
            assert ends == pytest.approx((one.low, one.high, one.difference), rel=1e-5)
        assert [row["seeds"] for row in drawn["interval"]] == [one.seeds for one in finite if one.looked]
        first, *_ = panel.chart.to_dict()["layer"]
        assert first["mark"]["style"] == "margin"
        assert rows[-1]["low"] == pytest.approx(contrast.sequential.low) and rows[-1]["decision"] == contrast.decision
    assert "forms no pair" in figure.caption and "cut off at its edge" in figure.caption
    assert "95% interval that holds at every look" in figure.caption and "all seeds so far" not in figure.caption
    looks = findings.contrasts[0].sequential
    assert looks is not None
    ends = f"{looks.low:+.2f} to {looks.high:+.2f} at 12 seeds, undecided".replace("-", "−")
    assert ends in figure.description and "a − c: " in figure.description
    assert [key.label for key in figure.keys] == ["better", "undecided"]
    spec = json.dumps(figure.chart().to_dict())
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b", spec), "a chart names a colour"
    svg = vl_convert.vegalite_to_svg({**json.loads(spec), "config": theme(LIGHT, standalone=True)})
    assert "NaN" not in svg and "Infinity" not in svg
    assert all(f"{marker.split('A')[0]}" in spec for marker in (DECISIONS["better"], DECISIONS["undecided"]))


def made(name: str, widths: Sequence[float], looked: Sequence[int] = (), margin: float = 0.5) -> ContrastFinding:
    """A contrast whose interval at 1, 2, 3, ... seeds is so wide to both sides of 0."""
    course = tuple(
        InterimAnalysis(n, n, 0.0, -width, width, "equivalent" if width < margin else "undecided", n in looked)
        for n, width in enumerate(widths, start=1)
    )
    low, high, n = (course[-1].low, course[-1].high, len(course)) if course else (-math.inf, math.inf, 0)
    sequential = SequentialAnalysis(low, high, 0.95, 0.95, 1, 400, n, 400, len(looked), course)
    decision = course[-1].decision if course else "undecided"
    return ContrastFinding(
        name,
        "z",
        "test_error",
        margin,
        tuple(range(n)),
        (0.0,) * n,
        0,
        0,
        None,
        (),
        Judgement(decision),
        sequential=sequential,
    )


def of(*contrasts: ContrastFinding) -> Findings:
    return Findings("s", "", (), contrasts)


FUNNEL = (math.inf, 600.0, 20.0, 5.0, 2.0, 1.0, 0.9)


@pytest.mark.slow
def test_panels_come_in_the_studys_order_and_those_with_the_most_seeds_are_drawn() -> None:
    many = [made(f"a{n}", FUNNEL[: 3 + n % 5], (3,)) for n in range(20)]
    figure = interim_intervals(of(*many))
    chosen = [int(panel.title.split(" ")[0][1:]) for panel in figure.panels]
    # all of 7, 6 and 5 seeds, 4 of each; none of the fewer
    assert chosen == [n for n in range(20) if n % 5 >= 2] and len(chosen) == SHOWN_PANELS
    assert "The 12 of 20 contrasts that took the most seeds are drawn" in figure.caption
    assert len(figure.data) == sum(3 + n % 5 for n in range(20)) and figure.columns == 2
    assert "took the most seeds" not in interim_intervals(of(*many[:2])).caption


def test_what_has_no_interval_is_said_and_not_drawn() -> None:
    figure = interim_intervals(of(made("a", FUNNEL, (3, 7)), made("b", (math.inf, math.inf)), made("c", ())))
    assert [panel.title for panel in figure.panels] == ["a − z: undecided at 7 seeds"]
    assert "No interval yet: b − z." in figure.caption and figure.columns == 1
    none = interim_intervals(of(made("a", (math.inf,)), made("b", ())))
    assert not none.panels and "No contrast has an interval yet" in none.caption and len(none.data) == 1
    assert interim_frame([]).empty and not interim_intervals(of()).panels


@pytest.mark.parametrize(("widths", "cut"), [(FUNNEL, True), ((math.inf, 1.2, 1.1, 1.0), False)])
def test_first_intervals_do_not_push_the_last_ones_together(widths: Sequence[float], cut: bool) -> None:
    figure = interim_intervals(of(made("a", widths, (3,))))
    low, high = figure.panels[0].chart.to_dict()["layer"][2]["encoding"]["y"]["scale"]["domain"]
    assert low <= -widths[-1] and widths[-1] <= high and high - low <= 4 * 2 * widths[-1]
    assert ("cut off" in figure.caption) == cut == (widths[1] > high)
    wide = interim_intervals(of(made("a", widths, (3,), margin=50.0))).panels[0].chart.to_dict()["layer"][2]
    assert wide["encoding"]["y"]["scale"]["domain"][1] > 75


def test_the_title_has_what_was_decided_and_when() -> None:
    sharpened = made("a", (math.inf, 9.0, 2.0, 0.4, 0.3, 0.2), (3, 4))
    assert sharpened.sequential is not None
    course = [*sharpened.sequential.interim[:-1], replace(sharpened.sequential.interim[-1], low=0.1, decision="worse")]
    changed = replace(sharpened.sequential, interim=tuple(course))
    figure = interim_intervals(of(replace(sharpened, sequential=changed)))
    assert [panel.title for panel in figure.panels] == ["a − z: equivalent at 4 seeds, then worse at 6 seeds"]
    assert "looks that were taken, and all seeds so far," in figure.caption
    assert [key.label for key in figure.keys] == ["worse", "equivalent", "undecided"]
    assert [row["seeds"] for row in bars(figure.panels[0])["interval"]] == [3, 4, 6]


def test_long_names_have_a_row_of_their_own() -> None:
    assert interim_intervals(of(made("a" * 40, FUNNEL, (3,)), made("b", FUNNEL, (3,)))).columns == 1


def test_many_seeds_are_thinned_but_no_look_and_not_the_data() -> None:
    looked = (3, 100, 271, 400)
    figure = interim_intervals(of(made("a", (math.inf, *(900.0 / n for n in range(2, 401))), looked)))
    drawn = bars(figure.panels[0])
    assert len(drawn["seed"]) == SHOWN_SEEDS and [row["seeds"] for row in drawn["interval"]] == list(looked)
    assert len(figure.data) == 400 and "thin bars: some of the seeds in between" in figure.caption
