import base64
import csv
import hashlib
import json
import math
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from browser import Browser
from leadline.analysis.diagnostics import Diagnostics, diagnose
from leadline.analysis.verdict import analyze
from leadline.errors import LeadlineError
from leadline.parts.metrics import Outputs
from leadline.probes.measured import Measurement
from leadline.probes.snapshots.decomposition import DecompositionProbe
from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, SECOND_MOMENT, WEIGHT_GRADIENT, FlowTable
from leadline.reports import page
from leadline.reports.charts.chart import DARK, LIGHT, Figure
from leadline.reports.charts.forest import forest
from leadline.reports.page import WHY_FIGURES, write
from leadline.reports.tables import tables
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.load import load_study
from leadline.text.layout import to_text
from leadline.text.tables import (
    Column,
    Table,
    latex_escape,
    markdown_escape,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)

HOSTILE = "</script><script>alert(1)</script><!--"
ENVIRONMENT = {
    "python": "3.11.4",
    "torch": "2.13.0",
    "cpu": "Testing & Sons <9000>",
    "git_commit": "f8d09ac",
    "threads": 1,
}


def study_of(
    arms: tuple[str, ...] = ("plain", "residual"), blocks: tuple[int, ...] = (2, 5), seeds: int = 3, **more: Any
) -> ExpandedStudy:
    spec = {
        "name": "trial-study",
        "title": "Depth & residuals",
        "training": {"epochs": 4},
        "arms": {
            arm: {"network": "comparative-resnet" if number else "comparative-cnn"} for number, arm in enumerate(arms)
        },
        "contrasts": [[arms[1], arms[0]]] if len(arms) > 1 else [],
        "published": [{"arm": arms[0], "value": 1.52, "source": "A paper | 2019"}],
        "seeds": seeds,
        **({"vary": {"blocks": list(blocks)}} if blocks else {}),
        **more,
    }
    return expand(parse(StudySpec, spec))


def measured(study: ExpandedStudy, states: dict[tuple[str, int], str] | str = {}) -> tuple[pd.DataFrame, pd.DataFrame]:  # noqa: B006
    """Trials and records as a store gives them, with made-up values: `plain` does not train from 5 blocks on."""
    generator = np.random.default_rng(7)
    trials, records = [], []
    for arm, spec in study.trials():
        state = states if isinstance(states, str) else states.get((arm.name, spec.seed), "finished")
        epochs = {"finished": 4, "diverged": 2, "failed": 1, "running": 3, "waiting": 0}[state]
        stuck = arm.base == "plain" and arm.factors.get("blocks", 1) in (5, 10)
        floor = 90.0 + generator.normal() if stuck else 2.0 + abs(generator.normal())
        trial: dict[str, Any] = {"trial": spec.content_hash, "arm": arm.name, "base": arm.base, "seed": spec.seed}
        started = pd.Timestamp("2026-11-21T05:00Z") if epochs else pd.NaT
        trials.append(
            {
                **trial,
                "factors": dict(arm.factors),
                "state": state,
                "error": {"failed": f"Broken: {HOSTILE}\nmore", "diverged": "not finite"}.get(state),
                "diverged_step": 61 if state == "diverged" else pd.NA,
                "started": started,
                "ended": started + pd.Timedelta(minutes=3) if state == "finished" else pd.NaT,
                "seconds": 180.5 if epochs else math.nan,
                "environment": ENVIRONMENT if epochs else None,
            }
        )
        values = [
            (epoch, split, name, value)
            for epoch in range(1, epochs + 1)
            for error in [floor + (0 if stuck else 50 * math.exp(-epoch))]
            for split in ("train", "validation")
            for name, value in (("error", error), ("accuracy", 1 - error / 100), ("loss", 0.02 + error / 30))
        ]
        values += [(epoch, "time", "seconds", 10.0) for epoch in range(1, epochs + 1)]
        if state == "finished":
            values += [(4, f"final-{split}", "error", floor) for split in ("train", "validation", "test")]
        if state == "diverged":
            values += [(3, "train", "loss", math.nan)]
        records += [{**trial, "step": 20 * e, "epoch": e, "split": s, "name": n, "value": v} for e, s, n, v in values]
    columns = ["trial", "arm", "base", "seed", "step", "epoch", "split", "name", "value"]
    frame = pd.DataFrame(trials).astype({"diverged_step": "Int64"})
    return frame, pd.DataFrame(records, columns=columns).astype({"value": float, "epoch": int, "seed": int})


def outputs(trials: pd.DataFrame) -> dict[str, Outputs]:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 10, 200).astype(np.int16)
    return {
        trial: Outputs(labels, np.where(generator.random(200) < 0.1, (labels + 1) % 10, labels).astype(np.int16))
        for trial in trials.loc[trials["state"].eq("finished"), "trial"]
    }


def seen_inside(trials: pd.DataFrame, records: pd.DataFrame) -> Diagnostics:
    """What probes might have seen: gradients shrink from block to block in `plain`; at 10 blocks its units are dead."""
    content: dict[str, list[tuple[int, bytes]]] = {}
    for trial, base, factors in zip(trials["trial"], trials["base"], trials["factors"], strict=True):
        blocks = factors.get("blocks", 2)
        names = tuple(f"stages.0.{block}" for block in range(blocks))
        norms = [(1.0 if base == "residual" else 0.02) ** (blocks - block) for block in range(blocks)]
        dead = 0.7 if base == "plain" and blocks == 10 else 0.1
        kinds = {
            ACTIVATION_GRADIENT: norms,
            WEIGHT_GRADIENT: norms,
            SECOND_MOMENT: [1.0] * blocks,
            DEAD: [dead] * blocks,
        }
        series = tuple(kind for kind in kinds for _ in range(blocks))
        row = np.array([value for values in kinds.values() for value in values], np.float32)
        for epoch in sorted(records.loc[records["trial"].eq(trial) & records["split"].eq("train"), "epoch"].unique()):
            table = FlowTable(names * len(kinds), series, np.arange(2) + 2 * epoch, np.stack([row, row]), names, 0.1)
            content.setdefault(trial, []).append((int(epoch), table.to_bytes()))
    return diagnose(trials, records, content)


def written(study: ExpandedStudy, trials: pd.DataFrame, records: pd.DataFrame, folder: Path, **more: Any) -> str:
    path = write(study, analyze(study, trials, records, outputs(trials).items()), trials, records, folder, **more)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


class Page(HTMLParser):
    """Elements, attributes, scripts and readable text of a page, as an HTML parser sees them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            if self._inside == "h2":
                self.headings.append(data)
            self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A report with everything in it: three depths, three seeds, a diverged, a failed and a running trial."""
    study = study_of(blocks=(2, 5, 10))
    states = {
        ("plain[blocks=10]", 1): "diverged",
        ("residual[blocks=2]", 2): "failed",
        ("plain[blocks=2]", 2): "running",
    }
    folder = tmp_path_factory.mktemp("report")
    trials, records = measured(study, states)
    return folder, Page(written(study, trials, records, folder, diagnostics=seen_inside(trials, records)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Page]:
    """A report of a study whose every name tries to become markup."""
    study = study_of(
        arms=("<script>alert(2)</script>", '"><b>|_$x\\y&amp;'),
        blocks=(),
        title=HOSTILE,
        notes=HOSTILE + "{{ 7 * 7 }}",
        published=[{"arm": '"><b>|_$x\\y&amp;', "value": 1.0, "source": HOSTILE}],
    )
    folder = tmp_path_factory.mktemp("hostile")
    states = {("<script>alert(2)</script>", 1): "failed"}
    trials, records = measured(study, states)
    why = seen_inside(trials, records)
    return folder, Page(
        written(study, trials, records, folder, command=HOSTILE, environment={HOSTILE: HOSTILE}, diagnostics=why)
    )


# --- files


def test_every_figure_and_table_is_a_file(report: tuple[Path, Page]) -> None:
    folder, _ = report
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{name}.{end}"
        for name in (
            *("accuracy-curves", "loss-curves", "test-error", "differences", "gradient-profiles"),
            *("gradient-flow", "weight-gradients", "activations", "dead-units", "early-flow"),
            *("accuracy-fit", "loss-fit", "error-by-depth"),
        )
        for end in ("svg", "pdf")
    }
    made = {path.name for path in (folder / "tables").iterdir()}
    assert made >= {
        f"{name}.{end}"
        for name in ("arms", "contrasts", "mcnemar", "published", "trials")
        for end in ("csv", "md", "tex")
    }
    assert made >= {"accuracy-curves.csv", "loss-curves.csv", "test-error.csv", "differences.csv"}
    assert all(path.read_bytes().startswith(b"%PDF") for path in (folder / "figures").glob("*.pdf"))
    assert all(b"</svg>" in path.read_bytes() for path in (folder / "figures").glob("*.svg"))
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "report.html", "study.yaml", "tables"]


def test_numbers_in_files_are_those_of_the_findings(report: tuple[Path, Page]) -> None:
    folder, _ = report
    arms = {row["arm"]: row for row in rows_of(folder / "tables" / "arms.csv")}
    trials = rows_of(folder / "tables" / "trials.csv")
    finished = [float(row["test_error"]) for row in trials if row["arm"] == "plain[blocks=10]" and row["test_error"]]
    assert len(finished) == 2
    assert float(arms["plain[blocks=10]"]["test_error_mean"]) == pytest.approx(sum(finished) / 2)
    assert (arms["plain[blocks=10]"]["diverged"], arms["residual[blocks=2]"]["failed"]) == ("1", "1")
    (row,) = (row for row in trials if row["state"] == "diverged")
    assert (row["diverged_step"], row["test_error"], row["error"]) == ("61", "", "not finite")


def test_the_specification_beside_the_report_is_the_study(report: tuple[Path, Page]) -> None:
    folder, page = report
    again = expand(parse(StudySpec, yaml.safe_load((folder / "study.yaml").read_text())))
    assert again == study_of(blocks=(2, 5, 10))
    assert (folder / "study.yaml").read_text() in page.text


@pytest.mark.slow
def test_a_report_replaces_an_older_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(arms=("cnn",), blocks=(), seeds=1)
    first = written(study, *measured(study), tmp_path)
    assert written(study, *measured(study), tmp_path) == first  # the same input, the same page
    assert (tmp_path / "figures" / "test-error.svg").exists()
    written(study, *measured(study, "waiting"), tmp_path)
    assert not list((tmp_path / "figures").iterdir())
    assert not (tmp_path / "tables" / "accuracy-curves.csv").exists()

    before = (tmp_path / "report.html").read_bytes()
    rename = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "report.html":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LeadlineError, match=r"report\.html: cannot be written: No space left on device; choose"):
        written(study, *measured(study), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    study = study_of(arms=("cnn",), blocks=(), seeds=1)
    with pytest.raises(LeadlineError, match=r"taken.*cannot be written") as caught:
        written(study, *measured(study, "waiting"), tmp_path / "taken")
    assert "\n" not in str(caught.value)


# --- tables


TABLE = Table(
    "t",
    "A_b & c",
    (Column("Arm", ("arm",), str, numeric=False), Column("Error, %", ("low", "high"), "{} to {}".format)),
    ({"arm": "x|y_1", "low": -1.5, "high": None}, {"arm": 'a,"b"\nc', "low": math.nan, "high": 2.0}),
)


def test_table_as_csv() -> None:
    assert to_csv(TABLE) == 'arm,low,high\nx|y_1,-1.5,\n"a,""b""\nc",,2.0\n'


def test_table_as_markdown() -> None:
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == r"**A\_b \& c**"
    assert lines[2:5] == ["| Arm | Error, % |", "| --- | ---: |", r"| x\|y\_1 | -1.5 to None |"]
    assert len(lines) == 6


def test_table_as_latex() -> None:
    text = to_latex(TABLE)
    assert r"\caption{A\_b \& c}" in text
    assert r"Arm & Error, \% \\" in text
    assert r"x|y\_1 & -1.5 to None \\" in text
    assert r"\begin{tabular}{lr}" in text


def test_a_note_stands_below_the_table() -> None:
    noted = replace(TABLE, note="100% <sure>")
    assert to_markdown(noted).endswith("|\n\n100% \\<sure\\>\n")
    assert r"\end{tabular}" + "\n  \\par\\footnotesize 100\\% " in to_latex(noted)
    assert to_html(noted).endswith("</table><p>100% &lt;sure&gt;</p>")
    assert to_text(noted).splitlines()[-1] == "100% <sure>" and to_csv(noted) == to_csv(TABLE)


@given(st.text())
def test_escaped_text_is_one_cell(text: str) -> None:
    markdown = markdown_escape(text)
    assert "\n" not in markdown
    assert not re.search(r"[|*_<>`\[\]#]", re.sub(r"\\.", "", markdown))
    assert re.sub(r"\\(.)", r"\1", markdown) == "".join(c for c in " ".join(text.split()) if c.isprintable())
    bare = re.sub(r"\\text\w+\{\}|\$[-\\pm]+\$|\{[\[\]]\}|\\[&%$#_{}]", "", latex_escape(text))
    assert not re.search(r"[&%$#_{}~^\\\n]", bare)


# --- the page


def test_verdict_comes_first_and_everything_follows(report: tuple[Path, Page]) -> None:
    _, page = report
    order = ["Verdict", "Arms", "Learning curves", "Final test error", "Contrasts", "Why", "Published against measured"]
    assert page.headings == [*order, "Trials", "Assumptions and notes", "Reproduce this study"]
    text = page.text
    said = text.index("residual has a lower test error than plain at blocks=5")
    assert text.index("Verdict") < said < text.index("Arms: mean")
    for told in ("Broken: </script>", "leadline run study.yaml", "f8d09ac", "Testing & Sons <9000>", "A paper | 2019"):
        assert told in text
    assert "15 of 18 trials finished, 1 diverged, 1 failed" in text
    assert "Provisional: waiting for 1 of 18 trials." in text


def test_why_says_what_was_measured_and_where_it_is_seen(report: tuple[Path, Page]) -> None:
    folder, _ = report
    html = (folder / "report.html").read_text(encoding="utf-8")
    part = html[html.index('<section id="why"') : html.index('<section id="published"')]
    words = " ".join(re.sub(r"<[^>]*>", "", part).split())
    assert "plain[blocks=5]: vanishing in" in words and "residual[blocks=10]: healthy in" in words
    assert "plain[blocks=10]: dead in" in words
    links, places = re.findall(r'href="#([\w-]+)"', part), re.findall(r'<figure id="([\w-]+)"', part)
    assert places == [*WHY_FIGURES[:5], "early-flow"]
    assert set(links) == {"gradient-flow", "dead-units"}
    assert "Spearman" in words and "Measuring took" in words
    assert 'href="#why"' in html


@pytest.mark.parametrize(("every", "said"), [(0, True), (1, False), (4, False), (5, True)])  # of 4 epochs
def test_learning_curves_say_how_test_values_are_had_where_there_are_none(
    every: int, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(blocks=(), seeds=1, training={"epochs": 4, "test_every": every})
    monkeypatch.setattr(page, "draw_figures", lambda findings, *_: [forest(findings), curve])
    curve = Figure("loss-curves", "Loss during training", "Made up.", pd.DataFrame())
    html = written(study, *measured(study), tmp_path)
    part = html[html.index('<section id="curves"') : html.index('<section id="contrasts"')]
    command = "leadline run study.yaml --set training.test_every=1 --as NAME"
    assert (f">{command}</pre>" in part) == ("no curves of test values" in part) == said
    again = load_study(tmp_path / "study.yaml", {"training.test_every": 1})  # what the command does
    assert all(arm.trial.training.test_every == 1 for arm in again.arms)


@pytest.mark.parametrize("most", [3, 4])
def test_effects_that_are_not_put_in_words_are_counted(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(arms=("a", "b", "c"), contrasts=[["b", "a"], ["c", "a"]])
    trials, records = measured(study)
    findings = analyze(study, trials, records, {})
    assert sum(effect.of == "difference" for effect in findings.factors) == 4
    monkeypatch.setattr(page, "SHOWN_EFFECTS", most)
    source, tabled = page.Source("Study", "", "", "s.yaml", "", "", "", ""), tables(study, findings, trials, records)
    html = page.write_page(source, findings, tabled, [forest(findings)], tmp_path).read_text(encoding="utf-8")
    part = html[html.index('id="factors"') : html.index("<table", html.index('id="factors"'))]
    assert part.count("<li>") == most
    assert ("The first 3 of 4 sentences; the table has every effect." in part) == (most == 3)


@pytest.mark.slow
def test_a_report_without_measurements_has_no_why_and_no_files_of_it(tmp_path: Path) -> None:
    study = study_of(blocks=(2,), seeds=1)
    trials, records = measured(study)
    assert 'id="why"' in written(study, trials, records, tmp_path, diagnostics=seen_inside(trials, records))
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert {"figures/gradient-flow.svg", "figures/gradient-profiles.pdf", "tables/activations.csv"} <= kept
    assert 'id="why"' not in written(study, trials, records, tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file()}
    gone = {name for name in kept if re.search("gradient|activations|early", name)}
    assert left == kept - gone


@pytest.mark.slow
def test_the_looks_of_a_study_that_decides_stand_below_its_differences(tmp_path: Path) -> None:
    deciding = study_of(seeds=12, decide={"margin": 0.5, "max_seeds": 12, "first": 5})
    trials, records = measured(deciding)
    html = written(deciding, trials, records, tmp_path)
    places = [
        html.index(text) for text in ('<figure id="differences"', '<figure id="interim"', "Contrasts: difference,")
    ]
    assert places == sorted(places) and html.count('<figure id="interim"') == 1
    assert {path.name for path in (tmp_path / "figures").glob("interim.*")} == {"interim.svg", "interim.pdf"}
    rows, contrasts = rows_of(tmp_path / "tables" / "interim.csv"), rows_of(tmp_path / "tables" / "contrasts.csv")
    assert len(rows) == 5 * len(contrasts) == 10 and {row["seeds"] for row in rows if not row["low"]} == {"1"}
    for row, contrast in zip(rows[4::5], contrasts, strict=True):  # the last is the verdict's, to the bit
        assert (row["a"], row["b"], row["decision"]) == (contrast["a"], contrast["b"], contrast["verdict"])
        assert [float(row[end]) for end in ("low", "high", "difference")] == [
            float(contrast[end]) for end in ("looks_low", "looks_high", "difference")
        ]
    fixed = study_of()
    assert 'id="interim"' not in written(fixed, *measured(fixed), tmp_path)
    assert not list(tmp_path.glob("*/interim.*"))


class ShownProbe(DecompositionProbe):
    about: ClassVar[str] = "What <i>it</i> shows."


def looked_into(trials: pd.DataFrame, records: pd.DataFrame, name: str = "decomposition") -> Diagnostics:
    """What a probe might have measured before the first step and after the last, of residual networks alone."""
    stored: dict[str, list[tuple[int, bytes]]] = {}
    for trial, base in zip(trials["trial"], trials["base"], strict=True):
        for epoch in (0, 4):
            rows = [(n, f"stages.0.{n}", "share", 0.1 * n + 0.01 * epoch) for n in (1, 2, 3)]
            frame = pd.DataFrame(rows, columns=["number", "block", "quantity", "value"])
            reason = "no <b>shortcut</b>" if base == "plain" else ""
            one = Measurement(pd.DataFrame() if reason else frame, 32, 0.5, epoch == 0, reason)
            stored.setdefault(trial, []).append((epoch, one.to_bytes()))
    return diagnose(trials, records, {}, {name: (ShownProbe(), stored)})


@pytest.mark.slow
def test_snapshot_probes_have_their_paragraph_their_figure_and_its_files(tmp_path: Path) -> None:
    study = study_of(blocks=(2,), seeds=2)
    trials, records = measured(study)
    html = written(study, trials, records, tmp_path, diagnostics=looked_into(trials, records))
    part = html[html.index('<section id="why"') : html.index('<section id="published"')]
    assert re.findall(r'<figure id="([\w-]+)"', part) == ["probe-decomposition"]
    words = " ".join(re.sub(r"<[^>]*>", " ", part).split())
    assert "Decomposition What &lt;i&gt;it&lt;/i&gt; shows. Measured on 32 validation images" in words
    assert "Before the first step (epoch 0), batch normalisation used" in words
    assert "Not measured in plain[blocks=2] (4 attempts): no &lt;b&gt;shortcut&lt;/b&gt;" in words
    assert "The snapshot probes took 4.0 s on top of the training time" in words
    assert "No gradients were measured" not in words and 'href="#why"' in html
    assert (tmp_path / "figures/probe-decomposition.svg").read_text().startswith("<svg")
    drawn = rows_of(tmp_path / "tables" / "probe-decomposition.csv")
    assert {row["arm"] for row in drawn} == {"residual[blocks=2]"}
    # another report in the same folder leaves nothing of it
    written(study, trials, records, tmp_path)
    assert not list(tmp_path.rglob("probe-*"))


@pytest.mark.slow
def test_a_probe_that_measured_nowhere_says_why_and_has_no_figure(tmp_path: Path) -> None:
    study = study_of(arms=("plain",), blocks=(2,), seeds=1)
    trials, records = measured(study)
    html = written(study, trials, records, tmp_path, diagnostics=looked_into(trials, records, "paths"))
    assert "Not measured in plain[blocks=2] (2 attempts)" in html
    assert not list(tmp_path.rglob("probe-*"))


def test_contrasts_say_the_smallest_p_that_can_be(report: tuple[Path, Page]) -> None:
    folder, page = report
    assert "p, permutation (smallest possible)" in page.text
    rows = rows_of(folder / "tables" / "contrasts.csv")
    five = next(row for row in rows if row["a"] == "residual[blocks=5]")
    assert (five["n"], five["p_smallest"], five["verdict"]) == ("3", "0.25", "better")
    assert float(five["p"]) >= 0.25
    assert "0.25 (0.25)" in page.text


def test_nothing_is_fetched_and_only_the_one_script_may_run(report: tuple[Path, Page]) -> None:
    _, page = report
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = (a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    (style,) = re.findall(r"<style>(.*?)</style>", (report[0] / "report.html").read_text(), flags=re.S)
    assert "url(" not in style
    assert "@import" not in style
    hashed = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{hashed}';")


def test_names_never_become_markup(hostile: tuple[Path, Page]) -> None:
    folder, page = hostile
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    assert kinds == ["application/json"] * (len(kinds) - 1) + [None]
    for data in page.scripts[:-1]:
        json.loads(data)
    assert not [tag for tag, _ in page.elements if tag == "b"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 6  # title, heading, notes, message, source, command, environment
    assert "{{ 7 * 7 }}" in page.text
    assert "<script" not in "".join(path.read_text() for path in (folder / "figures").glob("*.svg"))


def test_still_pictures_do_not_share_identifiers(report: tuple[Path, Page]) -> None:
    _, page = report
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    drawn = (report[0] / "report.html").read_text().replace(page.scripts[-1], "")
    used = set(re.findall(r"url\(#([^)]+)\)", drawn))
    assert len(used) >= 10
    assert used <= set(names)


def test_tables_and_charts_are_named_for_readers_who_do_not_see_them(report: tuple[Path, Page]) -> None:
    _, page = report
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") > 5
    assert all(a.get("scope") in ("col", "row") for tag, a in page.elements if tag == "th")
    for _, attributes in page.elements:
        kinds = (attributes.get("class") or "").split()
        if "chart" in kinds:
            assert (attributes["role"], bool(attributes["aria-label"])) == ("img", True)
        if "scroll" in kinds:
            assert (attributes["tabindex"], attributes["role"], bool(attributes["aria-label"])) == ("0", "region", True)
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert all(a["href"][1:] in targets for tag, a in page.elements if tag == "a" and a["href"])


# --- what is missing does not break it


ONE_LEVEL = study_of(blocks=())


@pytest.mark.slow
@pytest.mark.parametrize("state", ["waiting", "running", "diverged", "failed"])
def test_a_study_without_a_finished_trial(state: str, tmp_path: Path) -> None:
    page = Page(written(ONE_LEVEL, *measured(ONE_LEVEL, state), tmp_path))
    assert "No trial has finished, so there is no test error to show." in page.text
    assert "so there are no differences to show" in page.text
    assert ("No trial has yet finished an epoch" in page.text) == (state == "waiting")
    assert ("the environment is unknown" in page.text) == (state == "waiting")
    assert page.text.count("not finite\n") == (12 if state == "diverged" else 0)  # among the unfinished, and among all


@pytest.mark.slow
def test_one_seed_one_arm_and_one_epoch(tmp_path: Path) -> None:
    study = study_of(arms=("cnn",), blocks=(), seeds=1)
    trials, records = measured(study)
    page = Page(written(study, trials, records[records["epoch"].isin([1, 4])], tmp_path))
    assert "The study has no contrasts" in page.text
    assert "the only finished trial of each arm" in page.text
    assert "The only trial has finished" in page.text


@pytest.mark.slow
def test_no_validation_records_and_values_that_are_not_finite(tmp_path: Path) -> None:
    trials, records = measured(ONE_LEVEL)
    records = records[~records["split"].str.contains("validation")]
    records.loc[records["name"].eq("loss") & records["epoch"].ge(2), "value"] = math.nan
    records.loc[records["name"].eq("loss") & records["epoch"].eq(3), "value"] = math.inf
    page = Page(written(ONE_LEVEL, trials, records, tmp_path))
    assert "There are no validation records." in page.text
    assert "Values that are not finite are not drawn." in page.text
    assert "NaN" not in "".join(page.scripts[:-1])


# --- in a browser


@pytest.mark.slow
def test_every_chart_is_drawn_without_complaint_or_request(report: tuple[Path, Page], browser: Browser) -> None:
    path = report[0] / "report.html"
    browser.open(path)
    panels = 6 + 6 + 1 + 1  # accuracy, loss: two splits at three depths; test error; differences
    panels += 6 + 6 + 2  # accuracy, loss of six arms; error of two arms by depth
    panels += 9 + 4 * 6 + 1  # gradient profiles in three epochs at three depths; four heat maps of six arms; early flow
    assert browser.value("document.querySelectorAll('.chart[data-drawn]').length") == panels
    marks = "[...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('[role=\"graphics-symbol\"]').length)"
    drawn = browser.value(marks.replace('graphics-symbol"]', 'graphics-symbol"][aria-roledescription]'))
    assert len(drawn) == panels
    assert min(drawn) >= 4  # two axes, and marks of two arms
    charts = "[...document.querySelectorAll('#accuracy-curves .chart')]"
    lines = f"{charts}.map(chart => chart.querySelectorAll('.mark-line path').length)"
    assert all(count >= 2 for count in browser.value(lines))
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]


@pytest.mark.slow
def test_charts_follow_the_reader_into_the_dark(report: tuple[Path, Page], browser: Browser) -> None:
    stroke = "getComputedStyle(document.querySelector('#loss-curves .mark-line path')).stroke"
    ground = "getComputedStyle(document.body).backgroundColor"
    for dark, palette in ((False, LIGHT), (True, DARK)):
        browser.open(report[0] / "report.html", dark=dark)
        for expression, colour in ((stroke, palette.arms[0]), (ground, palette.ground)):
            parts = ", ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
            assert browser.value(expression) == f"rgb({parts})"


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 375])
def test_no_page_scrolls_sideways(width: int, report: tuple[Path, Page], browser: Browser) -> None:
    browser.open(report[0] / "report.html", width=width)
    assert browser.value("document.documentElement.scrollWidth") <= browser.value("innerWidth") == width
    over = (
        "[...document.querySelectorAll('.chart svg')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
    )
    assert browser.value(over) == 0
    assert browser.value("document.querySelector('#arms .scroll').scrollWidth") >= min(width, 600) - 40
    browser.call("Emulation.setDeviceMetricsOverride", width=width + 300, height=900, deviceScaleFactor=1, mobile=False)
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    deadline = time.monotonic() + 600
    while browser.value("document.documentElement.scrollWidth > innerWidth"):
        assert time.monotonic() < deadline, "charts do not shrink again"
        time.sleep(0.05)


@pytest.mark.slow
def test_wide_tables_fit_a_laptop(report: tuple[Path, Page], browser: Browser) -> None:
    open_all = "document.querySelectorAll('details').forEach(one => (one.open = true))"
    wide = (
        "[...document.querySelectorAll('#arms .scroll, #contrasts .scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    )
    for width in (1100, 1200):
        browser.open(report[0] / "report.html", width=width)
        browser.value(f"{open_all}, null")
        assert browser.value(f"{wide}.map(e => e.ariaLabel + e.scrollWidth)") == [], width


@pytest.mark.slow
def test_keyboard_reaches_the_skip_link_first_then_every_scrolling_table(
    report: tuple[Path, Page], browser: Browser
) -> None:
    browser.open(report[0] / "report.html")
    seen = []
    for _ in range(120):
        for kind in ("rawKeyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        seen.append(browser.value("document.activeElement.className || document.activeElement.tagName"))
        if seen[-1] == "skip":
            assert browser.value("document.activeElement.getBoundingClientRect().top >= 0")
            assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen[0] == "skip"
    assert {"SUMMARY", "A", "BUTTON", "scroll", "PRE"} <= {name.split(" ")[0] for name in seen}


def test_without_scripts_the_still_pictures_stay(report: tuple[Path, Page], browser: Browser) -> None:
    browser.open(report[0] / "report.html", scripts=False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.value("document.querySelectorAll('.chart[data-drawn]').length") == 0
    assert browser.value("document.querySelectorAll('.chart > svg .mark-line path').length") >= 20
    assert browser.complaints() == []


def press(browser: Browser, key: str, code: str, number: int, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, text=text[:1]
        )


LINES = "document.querySelectorAll('#accuracy-curves .mark-line path, #loss-curves .mark-line path').length"
OTHERS = "document.querySelectorAll('.panel[data-arm=residual]:not([hidden])').length"
PANELS = "document.querySelectorAll('.panel[data-arm=plain]:not([hidden])').length"


@pytest.mark.slow
def test_an_arm_is_switched_off_and_on_in_all_figures(report: tuple[Path, Page], browser: Browser) -> None:
    browser.open(report[0] / "report.html")
    lines, panels, others = (browser.value(one) for one in (LINES, PANELS, OTHERS))
    assert lines >= 2 * 2 * 2 * 3 and panels >= 9 and others >= 9
    name = "[...document.querySelectorAll('#loss-curves .keys button')].find(one => one.textContent.trim() === 'plain')"
    browser.value(f"{name}.focus(), null")
    press(browser, " ", "Space", 32, " ")
    assert browser.value(f"{name}.ariaPressed") == "false"
    assert lines / 3 < browser.value(LINES) < 2 * lines / 3
    assert (browser.value(PANELS), browser.value(OTHERS)) == (0, others)
    pressed = "[...document.querySelectorAll('.keys button[aria-pressed=false]')].map(one => one.textContent.trim())"
    assert set(browser.value(pressed)) == {"plain"} and len(browser.value(pressed)) > 3
    box = "document.querySelector('#switches input[value=plain]')"
    assert browser.value(f"{box}.checked") is False

    assert browser.value("location.hash") == "#hide=plain"  # and so again, where the address is opened
    address = f"{(report[0] / 'report.html').as_uri()}#hide=plain"
    browser.open("about:blank")
    browser.open(address)
    assert browser.value(PANELS) == 0 and browser.value(f"{box}.checked") is False

    browser.value("dispatchEvent(new Event('beforeprint')), null")  # paper has all arms
    assert (browser.value(LINES), browser.value(PANELS)) == (lines, panels)
    browser.value("dispatchEvent(new Event('afterprint')), null")
    assert browser.value(PANELS) == 0
    browser.value(f"{box}.click(), null")
    assert (browser.value(LINES), browser.value(PANELS), browser.value("location.hash")) == (lines, panels, "")
    assert browser.complaints() == []


CELLS = "[...document.querySelectorAll('#gradient-flow .mark-rect path[aria-roledescription]')]"
PALE = f"{CELLS}.filter(cell => Number(cell.getAttribute('opacity') ?? 1) < 1)"
LATER = f"{CELLS}.filter(cell => !cell.ariaLabel.startsWith('Epoch: 1;'))"


@pytest.mark.slow
def test_a_slider_shows_one_epoch_in_all_heat_maps_of_a_figure(report: tuple[Path, Page], browser: Browser) -> None:
    browser.open(report[0] / "report.html")
    slider = "document.querySelector('#gradient-flow .epochs input')"
    all_cells, later = browser.value(f"{CELLS}.length"), browser.value(f"{LATER}.length")
    assert 0 < later < all_cells and browser.value(f"{PALE}.length") == 0
    assert browser.value(f"{slider}.ariaValueText") == "all"
    assert browser.value("document.querySelectorAll('#gradient-flow .epochs').length") == 1
    browser.value(f"{slider}.focus(), null")
    press(browser, "ArrowRight", "ArrowRight", 39)
    assert browser.value(f"{slider}.ariaValueText") == "1"
    labels = ".map(cell => cell.ariaLabel)"
    assert browser.value(f"{PALE}{labels}") == browser.value(f"{LATER}{labels}")
    browser.value("dispatchEvent(new Event('beforeprint')), null")  # paper has all epochs
    assert browser.value(f"{PALE}.length") == 0
    browser.value("dispatchEvent(new Event('afterprint')), null")
    assert browser.value(f"{PALE}.length") == later
    press(browser, "ArrowLeft", "ArrowLeft", 37)
    assert browser.value(f"{PALE}.length") == 0
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_long_table_is_searched(tmp_path: Path, browser: Browser) -> None:
    study = study_of(arms=("cnn",), blocks=(), seeds=35)
    written(study, *measured(study), tmp_path)
    browser.open(tmp_path / "report.html")
    browser.value("document.querySelector('#trials details').open = true, null")
    browser.value("document.querySelector('#trials .search input').focus(), null")
    browser.call("Input.insertText", text="FINISHED")
    shown = "[...document.querySelectorAll('#trials tbody tr')].filter(row => row.checkVisibility()).length"
    assert browser.value(shown) == 35
    browser.call("Input.insertText", text=" nothing of the kind")
    assert browser.value(shown) == 0
    assert browser.value("document.querySelector('#trials [role=status]').textContent") == "0 of 35 rows"
    browser.value("dispatchEvent(new Event('beforeprint')), null")
    assert browser.value(shown) == 35
    assert browser.complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_report_keeps_the_rules_of_accessibility(
    dark: bool, report: tuple[Path, Page], browser: Browser, axe: str
) -> None:
    browser.open(report[0] / "report.html", dark=dark)
    assert browser.violations(axe) == []


@pytest.mark.slow
def test_print_opens_the_details_and_fits_the_paper(report: tuple[Path, Page], browser: Browser) -> None:
    browser.open(report[0] / "report.html", dark=True)
    printed = browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 24
    width = 688  # pixels of A4 within its margins
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.call("Emulation.setEmulatedMedia", media="print")
    white = browser.value("getComputedStyle(document.body).backgroundColor")
    assert white == "rgb(255, 255, 255)"
    assert browser.value("[...document.querySelectorAll('details pre, details table')].every(e => e.checkVisibility())")
    parts = "[...document.querySelectorAll('table, .chart svg')]"
    wide = f"{parts}.filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert browser.value(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == []


@pytest.mark.slow
def test_hostile_names_are_only_words_in_a_browser(hostile: tuple[Path, Page], browser: Browser) -> None:
    browser.open(hostile[0] / "report.html")
    assert browser.complaints() == []
    assert browser.value("document.title").startswith(HOSTILE)
    assert browser.value("document.querySelectorAll('script:not([type])').length") == 1
    assert browser.value("document.querySelectorAll('b').length") == 0


def test_data_of_any_chart_become_rows_below_names() -> None:
    given = {"datasets": {"text": '[{"a": 1, "b": 2}]', "records": [{"a": 1}, {"b": 2}], "values": [3, 4], "none": []}}
    assert page._with_rows(given)["datasets"] == {
        "text": [["a", "b"], [1, 2]],
        "records": [["a", "b"], [1, None], [None, 2]],
        "values": [["data"], [3], [4]],
        "none": [[]],
    }
