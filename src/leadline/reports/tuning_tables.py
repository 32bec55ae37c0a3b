"""Tuning in tables: what was chosen, what a smaller budget would have found, and everything that was tried."""

import numpy as np

from leadline.analysis.verdict.tuned import Tuning, shown
from leadline.reports.charts.chart import DIVERGED, each, spread
from leadline.reports.charts.tuning import BEST_OF, CHOSEN, settings_frame
from leadline.text import number
from leadline.text.tables import Column, Table

SHOWN_BUDGETS = 8


def tuning_tables(tuning: Tuning) -> tuple[Table, ...]:
    """Return the chosen values, the best of k by arm and contrast, and every setting; empty where nothing is left."""
    return chosen_table(tuning), best_table(tuning), leads_table(tuning), settings_table(tuning)


def chosen_table(tuning: Tuning) -> Table:
    """Return one row per arm: what was chosen, and how the search that chose it went."""
    keys = list(tuning.spec.space)
    rows = []
    for row in each(tuning.tried[tuning.tried["chosen"]]):
        own = tuning.tried[tuning.tried["arm"].eq(row.arm)]
        rows.append(
            {"arm": row.arm, **{key: row.values[key] for key in keys}, "error": row.error, "number": row.number}
            | {"median": float(own["error"].fillna(np.inf).median()), "settings": len(own)}
            | {"diverged": int(own["state"].eq(DIVERGED).sum())}
        )
    columns = (
        Column("Arm", ("arm",), str, numeric=False),
        *(Column(key, (key,), shown) for key in keys),
        Column("Validation error", ("error",), number, unit="%"),
        Column("Setting", ("number", "settings"), "{} of {}".format),
        Column("Median of all", ("median",), number, unit="%"),
        Column("Diverged", ("diverged",), str),
    )
    return Table("tuning-chosen", "Values that tuning chose for each arm", columns, tuple(rows))


def best_table(tuning: Tuning) -> Table:
    """Return one row per arm: the best validation error at a few budgets, the smallest and the whole among them."""
    if tuning.best.empty:
        return Table("tuning-budgets", _BUDGETS_CAPTION, (), ())
    budgets = _few_budgets(tuning)
    rows = [
        {"arm": arm} | {str(k): own.set_index("k")["mean"][k] for k in budgets}
        for arm, own in tuning.best.groupby("arm", sort=False)
    ]
    columns = (
        Column("Arm", ("arm",), str, numeric=False),
        *(Column(f"k = {k}", (str(k),), number) for k in budgets),
    )
    note = _describe_few(tuning)
    more = f" tables/{BEST_OF}.csv has the others." if note else ""
    return Table("tuning-budgets", _BUDGETS_CAPTION, columns, tuple(rows), note + more)


def leads_table(tuning: Tuning) -> Table:
    """Return one row per contrast: the arm that a few budgets would have put ahead, and in what share of searches."""
    if tuning.leads.empty:
        return Table("tuning-leads", _LEADS_CAPTION, (), ())
    budgets = _few_budgets(tuning)
    rows = []
    for (a, b), own in tuning.leads.groupby(["a", "b"], sort=False):
        row: dict[str, object] = {"a": a, "b": b}
        for one in each(own[own["k"].isin(budgets)]):
            row |= {f"{one.k}_a": one.share_a, f"{one.k}_b": one.share_b}
        rows.append(row)
    columns = (
        Column("First arm", ("a",), str, numeric=False),
        Column("Second arm", ("b",), str, numeric=False),
        *(Column(f"k = {k}", (f"{k}_a", f"{k}_b"), "{:.0%} / {:.0%}".format) for k in budgets),
    )
    return Table("tuning-leads", _LEADS_CAPTION, columns, tuple(rows), _describe_few(tuning))


def settings_table(tuning: Tuning) -> Table:
    """Return one row per setting of every arm, in the order of the search."""
    keys = list(tuning.spec.space)
    rows = tuple({str(name): value for name, value in row.items()} for row in settings_frame(tuning).to_dict("records"))
    columns = (
        Column("Arm", ("arm",), str, numeric=False),
        Column("Setting", ("number",), str),
        *(Column(key, (key,), shown) for key in keys),
        Column("Validation error", ("error",), number, unit="%"),
        Column("State", ("state",), str, numeric=False),
        Column("Chosen", ("chosen",), lambda chosen: CHOSEN if chosen else "", numeric=False),
    )
    return Table("tuning-every", "All settings that tuning tried", columns, rows)


_BUDGETS_CAPTION = "Best validation error by tuning budget k, %"
_LEADS_CAPTION = "Share of searches of k settings in which the first / the second arm has the lower best error"


def _describe_few(tuning: Tuning) -> str:
    """Return how many budgets a table has, or nothing if it has them all."""
    few, every = len(_few_budgets(tuning)), tuning.best["k"].nunique()
    return f"{few} of {every} budgets k: the smallest, doubling, and the whole one." if few < every else ""


def _few_budgets(tuning: Tuning) -> list[int]:
    """Return the smallest budgets, doubling, and the whole one, of those that curves have points at."""
    every = sorted(map(int, tuning.best["k"].unique()))
    doubled = {min(every, key=lambda k: abs(k - 2**power)) for power in range(every[-1].bit_length())}
    return spread(sorted({*doubled, every[-1]}), SHOWN_BUDGETS)
