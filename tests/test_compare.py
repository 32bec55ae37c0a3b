"""Runs that were trained elsewhere: which column is what, how rows become runs, and the verdict on them."""

import doctest
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import leadline as ll
from leadline.analysis.runs import find_columns
from leadline.analysis.runs.columns import higher_is_better, is_share
from leadline.analysis.runs.readers import read_runs, readers
from leadline.analysis.runs.readers.tables import read_csv
from leadline.analysis.stats import unpaired, unpaired_equivalence_p
from leadline.analysis.verdict import Findings, analyze, contrast_sentence, detail_sentences, effect_sentence, headline
from leadline.analysis.verdict.wording.tables import contrast_values
from leadline.api.comparison import Comparison
from leadline.cli import app
from leadline.errors import DataError
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand

PLAIN, RESIDUAL = [7.1, 7.4, 6.9, 7.3, 7.2], [6.5, 6.7, 6.4, 6.8, 6.6]


def table(**values: list[Any]) -> pd.DataFrame:
    """A row per arm and seed."""
    rows = [
        {"model": arm, "seed": seed, "test_error": value}
        for arm, own in values.items()
        for seed, value in enumerate(own)
    ]
    return pd.DataFrame(rows)


def compare(**values: list[Any]) -> Comparison:
    return ll.compare(table(**values), margin=0.5)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments])


def refused(*arguments: object, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        ll.compare(*arguments, **options)
    assert len(error.value.lines) == 1
    return str(error.value)


# --- the verdict of a study, from its numbers alone


def a_study(**changes: Any) -> ExpandedStudy:
    arms = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}
    return expand(parse(StudySpec, {"name": "toy", "arms": arms, "contrasts": [["residual", "plain"]], **changes}))


def results_of(study: ExpandedStudy, diverged: tuple[str, int] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials and records of a study, of which one trial may have diverged."""
    draw = np.random.default_rng(4)
    trials, records = [], []
    for arm, trial in study.trials():
        own = {"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        lost = diverged == (arm.name, trial.seed)
        better = 0.4 * (arm.base == "residual") * (1 + ("10" in arm.name))
        value = round(5 + 0.3 * trial.seed - better + draw.normal(0, 0.15), 2)
        trials.append({**own, "state": "diverged" if lost else "finished", "seconds": 1.0})
        if not lost:
            records.append({**own, "step": 1, "epoch": 1, "split": "final-test", "name": "error", "value": value})
    return pd.DataFrame(trials), pd.DataFrame(records)


def exported(study: ExpandedStudy, trials: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """The table that someone would keep of these trials."""
    arms = {arm.name: arm for arm in study.arms}
    values = records.set_index("trial")["value"]
    kept = pd.DataFrame({"arm": [arms[name].base for name in trials["arm"]]})
    for factor in study.spec.vary:
        kept[factor] = [arms[name].factors[factor] for name in trials["arm"]]
    kept["seed"] = trials["seed"]
    kept["test_error"] = trials["trial"].map(values)
    return kept


def same_verdict(own: Findings, other: Findings) -> None:
    for one, two in zip(own.contrasts, other.contrasts, strict=True):
        assert contrast_values(one) == contrast_values(two)
        assert contrast_sentence(one, own) == contrast_sentence(two, other)
        assert detail_sentences(one) == detail_sentences(two)
    assert [effect_sentence(one) for one in own.factors] == [effect_sentence(one) for one in other.factors]
    assert headline(own) == headline(other)


@pytest.mark.parametrize("correction", ["holm", "benjamini-hochberg"])
@pytest.mark.parametrize("diverged", [None, ("plain[blocks=5]", 2)])
def test_the_verdict_of_a_studys_numbers_is_its_own(
    correction: Any, diverged: tuple[str, int] | None, tmp_path: Path
) -> None:
    study = a_study(seeds=5, vary={"blocks": [2, 5, 10]}, margin=0.7, correction=correction)
    trials, records = results_of(study, diverged)
    own = analyze(study, trials, records, {})
    path = tmp_path / "results.csv"
    exported(study, trials, records).to_csv(path, index=False)
    found = ll.compare(path, factor="blocks", margin=0.7, resolution=own.contrasts[0].resolution, correction=correction)
    assert own.factors
    same_verdict(own, found.verdict.findings)


def test_the_verdict_of_a_study_that_decides_is_its_own() -> None:
    decide = {"max_seeds": 12, "first": 2, "step": 1, "margin": 0.5}
    study = a_study(decide=decide)
    study = study.resolve(drawn={arm.name: 7 for arm in study.arms}, planned=12)
    trials, records = results_of(study)
    own = analyze(study, trials, records, {})
    found = ll.compare(
        exported(study, trials, records), margin=0.5, decide=12, resolution=own.contrasts[0].resolution
    ).verdict.findings
    (one,), (two,) = own.contrasts, found.contrasts
    assert one.sequential is not None
    assert one.sequential == two.sequential
    assert contrast_sentence(one, own) == contrast_sentence(two, found)


# --- numbers and words


def test_a_table_of_two_arms_by_hand() -> None:
    found = compare(plain=PLAIN, residual=RESIDUAL)
    differences = np.subtract(RESIDUAL, PLAIN)
    (row,) = found.contrasts.to_dict("records")
    assert (row["a"], row["b"], row["metric"], row["n"], row["verdict"]) == (
        "residual",
        "plain",
        "test_error",
        5,
        "better",
    )
    assert row["difference"] == pytest.approx(differences.mean())
    half = 2.776445 * differences.std(ddof=1) / np.sqrt(5)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        (differences.mean() - half, differences.mean() + half), abs=1e-5
    )
    assert "residual has a lower test error than plain" in str(found)
    assert "Test data were not used" not in str(found)
    assert "Guessed from the names of columns: arms: model; pairs: seed; values: test_error." in str(found)
    assert "<table>" in found._repr_html_()


def test_fractions_stay_fractions_and_per_cent_is_in_points() -> None:
    share = table(plain=[0.91, 0.92, 0.90], residual=[0.93, 0.95, 0.92]).rename(columns={"test_error": "accuracy"})
    found = ll.compare(share)
    assert found.contrasts["difference"].iloc[0] == pytest.approx(0.07 / 3)
    assert "points" not in str(found)
    assert "residual has a higher accuracy" in str(found)
    share["accuracy"] *= 100
    assert "2.33 points" in str(ll.compare(share))


def test_fractions_beside_per_cent_are_refused_or_said() -> None:
    mixed = table(plain=[91.2, 0.92, 90], residual=[93.1, 95, 0.92]).rename(columns={"test_error": "accuracy"})
    with pytest.raises(DataError, match="plain and residual has values of at most 1 and others above 90"):
        ll.compare(mixed)
    said = [ll.compare(mixed, unit="%"), ll.compare(mixed.rename(columns={"accuracy": "accuracy (%)"}))]
    assert [one.contrasts["n"].iloc[0] for one in said] == [3, 3]
    apart = table(plain=[0.20, 0.21, 0.205], residual=[6.1, 6.2, 6.0])  # fractions; or one that is so much better
    taken = "test_error: all values are taken to be in per cent, such as 0.2 of plain and 6.1 of residual; if some"
    assert taken in str(ll.compare(apart)) and "all values are taken" not in str(ll.compare(apart, unit="%"))
    near = table(plain=[0.8, 1.1, 0.9], residual=[1.2, 1.3, 0.7])  # per cent on both sides of 1
    assert "all values are taken" not in str(ll.compare(near))


def test_a_spread_without_a_number_of_runs_is_said_not_to_be_used() -> None:
    printed = pd.DataFrame({"model": ["a", "b"], "error": [6.6, 6.2], "sd": [0.16, 0.2]})
    said = "Not used: sd; a standard deviation counts only with the number of runs, in a column n."
    assert said in str(ll.compare(printed))
    assert "Not used" not in str(ll.compare(printed.assign(n=5)))
    assert "Not used" not in str(ll.compare(printed, value="sd", higher_is_better=False))


def test_seeds_that_differ_are_not_paired() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    rows.loc[rows["model"] == "residual", "seed"] += 100
    found = ll.compare(rows, margin=0.5)
    (one,) = found.verdict.findings.contrasts
    assert one.apart is not None
    assert "are not paired" in str(found)
    assert "Behrens–Fisher, 5 and 5 unpaired trials" in str(found)
    assert found.contrasts["n_a"].tolist() == [5]
    asked = ll.compare(table(plain=PLAIN, residual=RESIDUAL), margin=0.5, unpaired=True)
    assert asked.contrasts["t_p" if "t_p" in asked.contrasts else "difference_p"].iloc[0] == pytest.approx(
        one.paired.t_p if one.paired else None
    )


def test_a_seed_without_a_partner_is_left_out_and_said() -> None:
    found = compare(plain=PLAIN, residual=RESIDUAL[:4])
    assert found.contrasts["n"].tolist() == [4]
    assert any("left out: plain alone has seed 4" in line for line in found.reading)


def test_a_failed_run_counts_as_worse_than_any() -> None:
    found = compare(plain=PLAIN, residual=[*RESIDUAL[:4], "diverged"])
    (row,) = found.contrasts.to_dict("records")
    assert (row["n"], row["verdict"]) == (4, "undecided")
    assert any("residual at seed 4" in line for line in found.reading)
    empty = compare(plain=PLAIN, residual=[*RESIDUAL[:4], None])
    assert contrast_values(empty.verdict.findings.contrasts[0]) == contrast_values(found.verdict.findings.contrasts[0])


def test_the_last_epoch_of_each_run_is_compared() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    first = rows.assign(test_error=50.0)
    epochs = pd.concat([rows.assign(epoch=2), first.assign(epoch=1)]).sort_values("test_error")
    epochs = epochs.sort_values("model", kind="stable")
    found = ll.compare(epochs, margin=0.5)
    assert found.contrasts["difference"].iloc[0] == pytest.approx(np.subtract(RESIDUAL, PLAIN).mean())
    assert any("last epoch (2)" in line for line in found.reading)
    shorter = pd.concat([rows.assign(epoch=2), first.assign(epoch=1), first.iloc[:1].assign(epoch=3)])
    assert any("these differ: 2 to 3" in line for line in ll.compare(shorter).reading)


def test_factors_and_data_sets() -> None:
    draw = np.random.default_rng(0)
    rows = [
        {
            "model": arm,
            "dataset": data,
            "depth": depth,
            "seed": seed,
            "test_error": 5 - (arm == "b") + draw.normal(0, 0.1),
        }
        for arm in "ab"
        for data in ("mnist", "cifar10")
        for depth in (2, 4)
        for seed in range(4)
    ]
    found = ll.compare(pd.DataFrame(rows), factor="depth").verdict.findings
    assert [one.a for one in found.contrasts][:2] == ["b[dataset=mnist,depth=2]", "b[dataset=mnist,depth=4]"]
    assert {one.within for one in found.factors} == {"dataset=mnist", "dataset=cifar10"}
    assert [one.a for one in found.meta_analyses] == ["b[depth=2]", "b[depth=4]"]


def test_several_values_have_margins_of_their_own() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL).assign(loss=[0.1, 0.2, 0.3, 0.4, 0.5, 0.2, 0.3, 0.3, 0.4, 0.6])
    found = ll.compare(rows, value=["test_error", "loss"], margin={"loss": 0.3})
    assert found.contrasts["metric"].tolist() == ["test_error", "loss"]
    assert [one.margin for one in found.verdict.findings.contrasts] == [0.0, 0.3]
    assert "of which values" in refused(rows, value=["test_error", "loss"], margin=0.3)


def test_which_contrasts() -> None:
    # far apart, since the seeds that an undecided contrast needs take a second to find
    arms = {name: [1.0 + place, 2.01 + place, 3.02 + 0.99 * place] for place, name in enumerate("abcde")}
    few = ll.compare(table(**{name: arms[name] for name in "abc"}))
    assert few.contrasts[["a", "b"]].values.tolist() == [["b", "a"], ["c", "a"], ["c", "b"]]
    many = ll.compare(table(**arms))
    assert many.contrasts["b"].tolist() == ["a"] * 4
    assert any("every arm against a, the first of 5" in line for line in many.reading)
    assert ll.compare(table(**arms), baseline="c").contrasts["a"].tolist() == ["a", "b", "d", "e"]
    assert ll.compare(table(**arms), contrasts=[("e", "b")]).contrasts["a"].tolist() == ["e"]
    assert "did you mean" in refused(table(plain=PLAIN, other=PLAIN), baseline="plane")


# --- columns


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["network", "run_seed", "test_accuracy", "train_accuracy"], ("network", ("run_seed",), ("test_accuracy",))),
        (["config.model", "fold", "seed", "val/f1"], ("config.model", ("fold", "seed"), ("val/f1",))),
        (["algorithm", "dataset", "acc"], ("algorithm", ("dataset",), ("acc",))),
    ],
)
def test_columns_are_guessed(names: list[str], found: tuple[Any, ...]) -> None:
    frame = pd.DataFrame([["x", *([0.0] * (len(names) - 1))], ["y", *([1.0] * (len(names) - 1))]], columns=names)
    guessed = find_columns(frame)
    assert (guessed.arm, guessed.pair, guessed.values) == found
    assert all(name in "; ".join(guessed.guessed) for name in (guessed.arm, *guessed.pair, *guessed.values))


def test_ambiguous_columns_are_asked_for() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    two = rows.assign(method=["x", "y"] * 5)
    assert refused(two) == "which column is the arm? there are model and method; name it with --arm"
    assert "there are loss_a and loss_b; name it with --value" in refused(
        rows.drop(columns="test_error").assign(loss_a=1.0, loss_b=2.0)
    )
    assert "is a higher score better?" in refused(rows.rename(columns={"test_error": "score"}))
    assert ll.compare(rows.rename(columns={"test_error": "score"}), higher_is_better=True)
    assert "did you mean 'test_error'" in refused(rows, value="test_eror")


@pytest.mark.parametrize(
    ("name", "higher"),
    [("error", False), ("testLoss", False), ("top1_acc", True), ("AUC", True), ("accuracy_loss", None), ("x", None)],
)
def test_names_say_which_direction_is_better(name: str, higher: bool | None) -> None:
    assert higher_is_better(name) is higher


@pytest.mark.parametrize("name", ["neg_log_loss", "neg_root_mean_squared_error", "test/negative_mae"])
def test_values_with_their_sign_turned_are_better_when_higher(name: str) -> None:
    assert higher_is_better(name) is True
    found = ll.compare(
        table(plain=[-one for one in PLAIN], residual=[-one for one in RESIDUAL]).rename(columns={"test_error": name})
    )
    assert found.contrasts["verdict"].tolist() == ["better"]


@pytest.mark.parametrize("name", ["epochs_to_accuracy", "accuracy_drop", "error_reduction", "val_acc_gap", "acc_std"])
def test_names_of_something_about_a_value_do_not_say_which_direction_is_better(name: str) -> None:
    assert higher_is_better(name) is None


def test_other_names_with_such_words_say_it_as_before() -> None:
    for name in (
        "f1_neg",
        "recall_negative",
        "hard_neg_auc",
        "text_to_image_recall",
        "change_detection_f1",
        "en_to_de_bleu",
    ):
        assert higher_is_better(name) is True, name
    for name in ("false_negative_error", "negative_sampling_loss", "speech_to_text_wer", "seconds_to_94", "diff_loss"):
        assert higher_is_better(name) is False, name
    frame = table(plain=PLAIN, residual=RESIDUAL).rename(columns={"test_error": "accuracy_drop"}).assign(seconds=3.0)
    assert "is a higher accuracy_drop better?" in refused(frame)


def test_a_mean_squared_error_is_no_share() -> None:
    assert is_share("test_error")
    assert not is_share("mean_squared_error")


# --- what cannot be compared


def test_rows_that_repeat_are_refused_by_name() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    twice = pd.concat([rows, rows.iloc[[1]].assign(test_error=8.0)]).assign(lr=range(11))
    message = refused(twice)
    assert "rows 2 and 11 are all of plain at seed 1" in message
    assert "(lr)" in message
    found = ll.compare(twice, mean_of_duplicates=True)
    assert any("11 rows are 10 runs" in line for line in found.reading)
    assert found.arms["test_error_mean"].iloc[0] == pytest.approx(np.mean([7.1, 7.7, 6.9, 7.3, 7.2]))


@pytest.mark.parametrize("name", ["wrong, %", "wrong (%)", "wrong%", "wrong_pct", "wrong (in %)", "wrong [%]"])
def test_per_cent_in_the_name_of_a_column_is_its_unit_and_said_once(name: str) -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL).rename(columns={"test_error": name})
    text = str(ll.compare(rows, value=name, higher_is_better=False))
    assert "Wrong, %" in text and "lower wrong than" in text


def test_bad_values() -> None:
    assert "row 2: 'much' is not a number" in refused(table(plain=[7.1, "much"], residual=[6.5, 6.7]))
    per_cent = refused(table(plain=[7.1, 6.9], residual=[6.5, "6.7%"]))
    assert "row 4: '6.7%' is not a number; write it without %" in per_cent
    mean = refused(table(plain=["6.61 ± 0.16"], residual=["7.1 +/- 0.2"]))
    assert "row 1: '6.61 ± 0.16' is not a number; write mean and standard deviation in columns of their own" in mean
    assert "has one arm, 'plain'" in refused(table(plain=PLAIN))
    assert "no rows" in refused(table(plain=PLAIN).iloc[:0], arm="model", value="test_error", pair="seed")
    assert "is empty in row 1" in refused(table(plain=PLAIN, residual=RESIDUAL).assign(seed=[None, *range(9)]))
    alone = compare(plain=[7.1], residual=[6.5])
    assert "one seed shows no spread between seeds, so there is no interval" in str(alone)


def test_bad_files(tmp_path: Path) -> None:
    binary, empty, folder = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "c"
    binary.write_bytes(bytes(range(256)) * 10)
    empty.write_text("")
    folder.mkdir()
    twice = tmp_path / "twice.csv"
    twice.write_text("model,seed,seed,error\na,0,0,1\n")
    broken = tmp_path / "d.jsonl"
    broken.write_text('{"model": "a"}\n{"model": \n')
    for path, words in (
        (binary, "is not UTF-8 text"),
        (empty, "is not a table"),
        (folder, "a folder that holds no results"),
        (tmp_path / "none.csv", "no such file"),
        (twice, "column 'seed' stands twice"),
        (broken, "d.jsonl:2: is not JSON"),
    ):
        result = run(str(path))
        assert result.exit_code == 1
        assert words in str(result.exception)


def test_every_format_gives_the_same(tmp_path: Path) -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    rows.to_csv(tmp_path / "a.csv", index=False)
    rows.to_csv(tmp_path / "b.tsv", index=False, sep="\t")
    rows.to_csv(tmp_path / "c.csv", index=False, sep=";", encoding="utf-8-sig")
    rows.to_json(tmp_path / "d.json", orient="records")
    (tmp_path / "e.json").write_text(json.dumps(rows.to_dict("list")))
    rows.to_json(tmp_path / "f.jsonl", orient="records", lines=True)
    rows.to_parquet(tmp_path / "g.parquet")
    for path in sorted(tmp_path.iterdir()):
        pd.testing.assert_frame_equal(read_runs(path)[0], rows)
    assert len(readers()) >= 4


def test_a_million_rows_of_epochs() -> None:
    runs, epochs = 2 * 50, 10_000
    seeds = np.repeat(np.arange(runs) // 2, epochs)
    arms = np.repeat(np.where(np.arange(runs) % 2, "b", "a"), epochs)
    values = 5 + seeds / 100 - 0.5 * (arms == "b") + np.tile(np.linspace(3, 0, epochs), runs)
    frame = pd.DataFrame({"arm": arms, "seed": seeds, "epoch": np.tile(np.arange(epochs), runs), "error": values})
    found = ll.compare(frame)
    assert found.contrasts[["n", "verdict"]].values.tolist() == [[50, "better"]]


# --- the command


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    table(plain=PLAIN, residual=RESIDUAL).to_csv(path, index=False)
    result = run(str(path), "--margin", "0.5", "--contrast", "plain,residual")
    assert result.exit_code == 0
    assert "plain has a higher test error than residual" in result.output
    plain = json.loads(run(str(path), "--json").output)
    assert plain["contrasts"][0]["verdict"] == "better"
    assert re.search("Guessed", plain["reading"][0])
    assert "expected two arms" in str(run(str(path), "--contrast", "plain").exception)
    assert "expected a number" in str(run(str(path), "--margin", "x").exception)
    assert "there may be in all, 5 to 400" in str(run(str(path), "--decide", "3").exception)


# --- the report


def test_the_report_repeats_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    rows = [
        (arm, seed, epoch, 5 - (arm == "residual") + 3 / epoch + draw.normal(0, 0.1))
        for arm in ("plain", "residual")
        for seed in range(4)
        for epoch in (1, 2, 3)
    ]
    frame = pd.DataFrame(rows, columns=["model", "seed", "epoch", "val/error"])
    frame.loc[(frame["seed"] == 2) & (frame["model"] == "plain") & (frame["epoch"] == 3), "val/error"] = np.nan
    found = ll.compare(frame, margin=0.5)
    page = found.report(tmp_path).read_text()
    assert "residual has a lower val/error" in page
    assert "study.yaml" not in page
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"runs-val-error.svg", "runs-val-error-curves.svg", "differences.svg"} <= names
    assert "Lines join the runs of a pair." in page
    assert "| plain | 2 | diverged | – |" in (tmp_path / "tables" / "trials.md").read_text()
    command = re.search(r'aria-label="Command">leadline compare (.*?)</pre>', page)
    assert command is not None
    monkeypatch.chdir(tmp_path)
    again = json.loads(run(*command[1].split(), "--json").output)
    assert again["contrasts"] == found.to_json()["contrasts"]


def test_the_report_of_looks_and_of_several_values(tmp_path: Path) -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    rows["top-1 / accuracy"] = 100 - rows["test_error"]
    page = ll.compare(rows, value=["test_error", "top-1 / accuracy"], decide=12).report(tmp_path)
    assert "valid at every look, 5 of at most 12 seeds" in page.read_text()
    assert (tmp_path / "figures" / "interim.svg").exists()
    assert (tmp_path / "figures" / "runs-top-1-accuracy.svg").exists()


def test_the_page_shows_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "compare.md").read_text()
    blocks = dict(re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[::-1])  # the first of each
    monkeypatch.chdir(tmp_path)
    Path("results.csv").write_text(blocks[""])
    shown = run(*blocks["sh"].split()[2:])
    assert shown.exit_code == 0
    assert shown.output.startswith(blocks["console"].rstrip())
    assert Path("report/results/report.html").exists()
    exec(compile(blocks["python"], "compare.md", "exec"), {})  # the example itself


def test_states_say_how_runs_ended() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL).assign(status=["finished"] * 8 + ["crashed", "running"])
    found = ll.compare(rows)
    assert any("whose status is 'running'" in line for line in found.reading)
    assert any("residual at seed 3" in line for line in found.reading)
    assert found.contrasts["n"].tolist() == [3]
    assert "no run has ended" in refused(rows.assign(status="running"))


def test_frames_of_any_kind() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    rows.index = [0] * 10
    plain = ll.compare(rows).contrasts
    numbered = rows.rename(columns={"seed": 0}).assign(tags=[["a", "b"]] * 10)
    assert ll.compare(numbered, pair="0").contrasts["difference"].tolist() == plain["difference"].tolist()
    assert "stands twice" in refused(pd.concat([rows, rows["seed"]], axis=1))
    folds = rows.assign(seed=[f"fold {name}" for name in "abcde"] * 2).rename(columns={"seed": "fold"})
    found = ll.compare(folds)
    assert found.contrasts["difference"].tolist() == plain["difference"].tolist()
    assert "Pairs are by fold" in str(found)


def test_pairs_of_data_sets_are_not_called_other_seeds_of_one() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL).rename(columns={"seed": "dataset"})
    assert "other seeds on this one data set" not in str(ll.compare(rows))
    assert "Pairs are by dataset" in str(ll.compare(rows))


def test_failures_of_arms_that_form_no_pairs() -> None:
    rows = table(plain=[*PLAIN, None, None, None, None], residual=[*RESIDUAL, 6.6, 6.7, 6.5, 6.4])
    found = ll.compare(rows, unpaired=True, margin=0.5)
    (one,) = found.verdict.findings.contrasts
    assert one.apart is not None
    assert (one.apart[1].trials, one.apart[1].failed) == (9, 4)
    assert one.decision == "better"
    only = ll.compare(table(plain=[*PLAIN[:1], *[None] * 8], residual=[*RESIDUAL, 6.6, 6.7, 6.5, 6.4]), unpaired=True)
    assert "0 of 9 trials of residual failed and 8 of 9 trials of plain" in str(only)
    none = ll.compare(table(plain=[None] * 3, residual=[None] * 3), value="test_error")
    assert "every trial of both failed" in str(none)


def test_runs_without_pairs_that_are_equivalent() -> None:
    draw = np.random.default_rng(1)
    rows = table(a=list(draw.normal(5, 0.1, 12)), b=list(draw.normal(5, 0.1, 12)))
    found = ll.compare(rows, unpaired=True, margin=0.5)
    assert found.contrasts["verdict"].tolist() == ["equivalent"]
    assert "equivalent in test error within 0.5 points" in str(found)


def test_a_direction_that_is_given_decides_over_a_name_but_not_over_several() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    assert ll.compare(rows, higher_is_better=True).contrasts["verdict"].tolist() == ["worse"]
    both = ll.compare(rows.assign(score=rows["test_error"]), value=["test_error", "score"], higher_is_better=True)
    assert both.contrasts["verdict"].tolist() == ["better", "worse"]


@pytest.mark.parametrize("module", ["analysis.runs.columns", "analysis.runs.summaries", "api.comparison"])
def test_examples(module: str) -> None:
    tried = doctest.testmod(sys.modules[f"leadline.{module}"])
    assert tried.attempted and not tried.failed


def test_values_that_are_logged_now_and_then_are_no_failures() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    steps = [
        rows.assign(step=step, test_error=rows["test_error"] + 5 - step if step % 2 else None) for step in range(7)
    ]
    found = ll.compare(pd.concat(steps), margin=0.5)
    assert found.contrasts[["n", "verdict"]].values.tolist() == [[5, "better"]]
    assert any("every step at which no run has a value" in line for line in found.reading)
    # without a gap before, the values end because the runs failed
    ended = pd.concat([rows.assign(step=0), rows.assign(step=1, test_error=None)])
    assert "every trial of both failed" in str(ll.compare(ended, value="test_error"))


def test_a_time_beside_the_values_is_not_meant() -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL).assign(train_time=1.0)
    assert ll.compare(rows).contrasts["metric"].tolist() == ["test_error"]
    assert find_columns(rows.drop(columns="test_error")).values == ("train_time",)


# --- means and standard deviations, as papers print them

PRINTED = "model,test_error,sd,n\nResNet-110,6.61,0.16,5\npre-activation,6.37,0.15,7\n"


def test_a_printed_table_is_judged_by_its_moments_alone(tmp_path: Path) -> None:
    (tmp_path / "printed.csv").write_text(PRINTED)
    found = ll.compare(tmp_path / "printed.csv", margin=0.5)
    row = found.contrasts.iloc[0]
    # other samples with the same means and standard deviations
    draw = np.random.default_rng(0)
    others = [(mean, sd, draw.exponential(size=n)) for mean, sd, n in ((6.37, 0.15, 7), (6.61, 0.16, 5))]
    a, b = (mean + sd * (x - x.mean()) / x.std(ddof=1) for mean, sd, x in others)
    expected = unpaired(a, b)
    assert row["difference"] == pytest.approx(-0.24)
    assert row["difference_p"] == pytest.approx(expected.t_p)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected.ci95)
    assert row["equivalence_p"] == pytest.approx(unpaired_equivalence_p(a, b, 0.5))
    arms = found.to_json()["arms"].values()
    assert [(arm["test_error"]["mean"], arm["test_error"]["sd"], arm["test_error"]["n"]) for arm in arms] == [
        (pytest.approx(6.61), pytest.approx(0.16), 5),
        (pytest.approx(6.37), pytest.approx(0.15), 7),
    ]


def test_nothing_is_made_up_of_a_printed_table(tmp_path: Path) -> None:
    (tmp_path / "printed.csv").write_text(PRINTED)
    found = ll.compare(tmp_path / "printed.csv", margin=0.5)
    (contrast,) = found.to_json()["contrasts"]
    assert contrast["p"] is None and contrast["p_adjusted"] is None and contrast["bca95"] is None
    assert all(
        arm["test_error"][name] is None for arm in found.to_json()["arms"].values() for name in ("median", "minimum")
    )
    assert "permutation" not in str(found)
    page = found.report(tmp_path / "report")
    assert (tmp_path / "report" / "runs.csv").read_text() == PRINTED
    assert [path.name for path in (tmp_path / "report" / "figures").glob("*.svg")] == ["differences.svg"]
    command = re.search(r'aria-label="Command">leadline compare (.*?)</pre>', page.read_text())
    assert command is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "report")
        again = json.loads(run(*command[1].split(), "--json").output)
    assert again["contrasts"] == found.to_json()["contrasts"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,6.6,0,5\nb,6.1,0.2,5\n", "row 1: std is 0 and runs is 5; expected a standard deviation above 0"),
        ("a,6.6,0.1,5\nb,6.1,0.2,1\n", "row 2: std is 0.2 and runs is 1; expected"),
        ("a,6.6,0.1,5\nb,6.1,?,5\n", "row 2: std is '?'; expected a number"),
        ("a,6.6,0.1,5\nb,6.1,0.2,2.5\n", "row 2: std is 0.2 and runs is 2.5"),
        ("a,6.6,0.1,5\nb,6.1,0.2,5\na,6.5,0.1,5\n", "rows 1 and 3 are of one arm"),
    ],
)
def test_bad_printed_tables(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "printed.csv").write_text(f"model,error,std,runs\n{rows}")
    assert message in refused(tmp_path / "printed.csv")


def test_a_table_of_runs_with_a_spread_is_no_printed_one() -> None:
    frame = table(plain=PLAIN, residual=RESIDUAL).assign(sd=0.1, n=5)
    assert ll.compare(frame, value="test_error").to_json()["contrasts"][0]["seeds"] == [0, 1, 2, 3, 4]


# --- input that is easily misread


def test_decimal_commas_between_semicolons_are_read(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    rows = ["a;0;1,5", "a;1;1,7", "a;2;2", "b;0;2,5", "b;1;2,6", "b;2;3,1"]
    path.write_text("\n".join(["model;seed;test_error", *rows]), encoding="utf-8-sig")
    assert ll.compare(path).arms["test_error_mean"].tolist() == pytest.approx([5.2 / 3, 8.2 / 3])


def test_tables_compressed_with_gzip_are_read(tmp_path: Path) -> None:
    rows = table(plain=PLAIN, residual=RESIDUAL)
    rows.to_csv(tmp_path / "runs.csv.gz", index=False)
    assert ll.compare(tmp_path / "runs.csv.gz").to_json() == ll.compare(rows).to_json()
    whole = (tmp_path / "runs.csv.gz").read_bytes()
    for name, content in (("half.csv.gz", whole[: len(whole) // 2]), ("none.csv.gz", b"model,seed")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: cannot be decompressed"):
            ll.compare(tmp_path / name)


def test_the_command_of_a_report_keeps_the_direction_of_values_whose_names_do_not_say(tmp_path: Path) -> None:
    frame = table(plain=PLAIN, residual=RESIDUAL).rename(columns={"test_error": "loss"})
    frame["score"] = range(len(frame))
    found = ll.compare(frame, value=["loss", "score"], higher_is_better=True)
    page = found.report(tmp_path / "report").read_text()
    assert "--value score --higher-is-better" in page and "--lower-is-better" not in page


def test_means_on_several_data_sets_are_compared_on_each() -> None:
    rows = [("x", "a", 5, 0.1, 9), ("x", "b", 6, 0.1, 9), ("y", "a", 8, 0.1, 9), ("y", "b", 9, 0.1, 9)]
    found = ll.compare(pd.DataFrame(rows, columns=["dataset", "method", "error", "std", "runs"]))
    assert found.contrasts["verdict"].tolist() == ["worse", "worse"]
    with pytest.raises(DataError, match="row 1: n is 1,000,000,000; expected the number of runs, at most 10,000"):
        ll.compare(pd.DataFrame({"model": ["a", "b"], "error": [1.0, 2.0], "sd": 0.1, "n": 10**9}))


def test_a_single_pair_of_runs_is_told_to_have_more() -> None:
    assert "add runs at other seeds." in str(ll.compare(table(plain=PLAIN[:1], residual=RESIDUAL[:1])))


def test_a_run_that_failed_before_values_are_logged_has_failed() -> None:
    rows = [
        (arm, seed, epoch, 5.0 + seed if epoch == 10 else None)
        for arm in "ab"
        for seed in range(3)
        for epoch in (1, 10)
    ]
    rows = [row for row in rows if row[:3] != ("b", 1, 10)]
    found = ll.compare(pd.DataFrame(rows, columns=["arm", "seed", "epoch", "test_error"]))
    assert "counts as diverged, worse than any other: b at seed 1." in str(found)


def test_words_for_missing_numbers_are_text_among_text(tmp_path: Path) -> None:
    rows = [f"{arm},{seed},{5 + seed / 10 + bonus}" for arm, bonus in (("None", 1), ("batch", 0)) for seed in range(4)]
    file = tmp_path / "norm.csv"
    file.write_text("\n".join(["norm,seed,test_error", *rows, "None,4,NaN", "batch,4, #N/A"]) + "\n")
    frame = read_csv(file)
    assert frame["norm"].unique().tolist() == ["None", "batch"]
    assert frame["test_error"].dtype == float and frame["test_error"].isna().sum() == 2
    assert ll.compare(file, arm="norm").contrasts["n"].tolist() == [4]  # one seed failed in both
    file.write_text(
        "dropout,seed,early,test_error\nnone,0,True,5.1\n0.1,0,False,5.2\nnone,1,,5.3\n0.1,1,True,diverged\n"
    )
    assert read_csv(file)["dropout"].tolist() == ["none", "0.1"] * 2
    assert read_csv(file)["early"].tolist()[:2] == [True, False]
    file.write_text("model;seed;test_error\nplain;0;7,05\nplain;1;NaN\nplain;2;6,5\n")
    np.testing.assert_array_equal(read_csv(file)["test_error"], [7.05, np.nan, 6.5])


def test_a_separator_at_the_end_of_each_row_shifts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "trailing.csv"
    expected = table(plain=PLAIN, residual=RESIDUAL)
    head, *rows = expected.to_csv(index=False).splitlines()
    for end in (",", ",,"):
        file.write_text("\n".join([head, *(f"{row}{end}" for row in rows)]) + "\n")
        pd.testing.assert_frame_equal(read_csv(file), expected)
    file.write_text("\n".join([head, *(f"r{number},{row}" for number, row in enumerate(rows))]) + "\n")
    pd.testing.assert_frame_equal(read_csv(file).reset_index(drop=True), expected)  # as R writes names of rows
    file.write_text("\n".join([f"{head},note", *(f"r{number},{row}," for number, row in enumerate(rows))]) + "\n")
    assert "name their column, and if rows end with a separator, remove it" in refused(file)


def test_a_separator_in_a_quoted_name_is_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "quoted.csv"
    frame = table(plain=PLAIN, residual=RESIDUAL).rename(columns={"test_error": "error, %"})
    frame.assign(**{"accuracy, %": 100 - frame["error, %"]}).to_csv(file, index=False)
    assert ll.compare(file, value="error, %").contrasts["n"].tolist() == [5]
    frame.to_csv(file, index=False, header=["model", "seed", "seed"])
    assert "column 'seed' stands twice" in refused(file)


def test_pairs_that_were_written_in_two_ways_are_pairs() -> None:
    frame = table(plain=PLAIN, residual=RESIDUAL)
    residual = frame["model"] == "residual"
    mixed = frame.assign(seed=[str(seed) if of else seed for seed, of in zip(frame["seed"], residual, strict=True)])
    assert ll.compare(mixed).contrasts["n"].tolist() == [5]
    folds = frame.assign(fold=[f"f{seed}" + " " * of for seed, of in zip(frame["seed"], residual, strict=True)])
    assert ll.compare(folds.drop(columns="seed")).contrasts["n"].tolist() == [5]


def test_levels_that_one_arm_alone_has_are_named() -> None:
    one, two = (table(plain=PLAIN, residual=RESIDUAL).assign(dataset=name) for name in ("cifar10", "svhn"))
    two.loc[two["model"] == "residual", "dataset"] = "SVHN"
    reading = "\n".join(ll.compare(pd.concat([one, two], ignore_index=True)).reading)
    assert "Left out of residual against plain: 5 runs of residual[dataset=SVHN], of which plain has none." in reading
    assert "5 runs of plain[dataset=svhn], of which residual has none." in reading


def test_a_run_that_lacks_one_of_several_values_is_told_with_what_it_lacks() -> None:
    frame = table(plain=PLAIN, residual=RESIDUAL).assign(macro_f1=0.5)
    frame.loc[7, "macro_f1"] = None
    reading = "\n".join(ll.compare(frame, value=["test_error", "macro_f1"]).reading)
    assert "1 run has no number or failed, and counts as diverged, worse than any other: residual at seed 2." in reading
    assert "Of these, 1 run has other values and no macro_f1: if that does not mean that a run failed" in reading
    assert ll.compare(frame, value="test_error").contrasts["n"].tolist() == [5]
