"""The page: claims with the contrasts that show them, published numbers beside measured ones, what was run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.evidence.measuring import CONVERGENCE
from leadline.analysis.verdict.wording.sentences import can_be_run, roughly
from leadline.networks.families.registry import family
from leadline.networks.modules import inspect_network
from leadline.study.load import load_study
from leadline.study.ready import ready_studies
from leadline.text import interval, join, number, plural

HEAD = """# Evidence: published claims and numbers

What has been measured, beside what was published. The page is written by `python -m benchmarks.evidence` from the
results of ready studies; no measured number is entered by hand. A claim is *held* by a contrast whose verdict is the
expected one, and *reversed* by one whose verdict is the opposite, or a difference where none was expected: [what the
words mean](verdicts.md). A difference that the source publishes stands beside the measured one; an interval that has
both that difference and 0 leaves the claim undecided. An interval is that of the contrast alone, while its verdict is
corrected for all contrasts of the study, so that a contrast may be undecided although its interval excludes 0. Most of
these studies are small ones for two cores. A claim that is reversed or undecided is so at this size, which does not
refute it at the size of its source. CIFAR-10 was read from JPEG copies of its images, whose pixels differ slightly.

A network's epoch of convergence, which every verdict tells of its arms, is the first from which its validation accuracy
stays within 1 point of its last value, for the last quarter of the epochs at least; a source need not have determined
it in this way. Arms are compared in it over the seeds at which both networks have one, in an analysis apart from that
of the study's own contrasts.

Some studies that left contrasts undecided were run once more, with about as many seeds as their verdicts said would
decide them, all of them new: [what was run](#what-was-run) names these seeds, and they alone are counted.
"""

OPPOSITE = {"better": "worse", "worse": "better"}
KINDS = {"imagenet-resnet": ((3, 224, 224), 1000), "imagenet-plain": ((3, 224, 224), 1000)}
CIFAR = ((3, 32, 32), 10)


def write_page(claims: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    Args:
        claims: the content of claims.yaml.
        measured: study -> what it shows, as `measuring.measure` returns it.
    """
    parts = [HEAD, "## Claims", *_claims(claims["claims"], measured)]
    parts += ["## Published results of training", _trained(claims["trained"], measured, claims["studies"])]
    parts += ["## What accuracy on CIFAR-10 costs", _fast(claims["fast"], measured)]
    parts += ["## Published properties of networks", _computed(claims["computed"])]
    parts += ["## What was run", _studies(claims["studies"], measured)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _claims(claims: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> Iterator[str]:
    summary, details = [], []
    for claim in claims:
        rows = [row for shown in claim["shown"] for row in _rows(shown, measured)]
        outcome = _outcome([row[-1] for row in rows])
        summary.append([claim["claim"], claim["source"], outcome])
        details += [f"### {claim['claim']}", f"{claim['source']}. Here: **{outcome}**."]
        details.append(_table(["Study", "Compared", "Measured", "Verdict", "Claim"], rows))
    yield _table(["Claim", "Source", "Here"], summary)
    yield from details


def _rows(shown: Mapping[str, Any], measured: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each contrast, or for the arm, that a study has of a claim."""
    study, found = shown["study"], measured.get(shown["study"])
    name = f"`{study}`"
    if found is None:
        return [[name, _compared(shown), "", "", "not run"]]
    if "arm" in shown:
        arms = [arm for arm in found["arms"] if arm == shown["arm"] or arm.startswith(f"{shown['arm']}[")]
        vanishing = [arm for arm in arms if arm in (found["vanishing"] or ())]
        word = "vanishing" if vanishing else "not vanishing"
        said = f"{len(vanishing)} of {plural(len(arms), 'arm')}"
        return [[name, f"gradients of {shown['arm']}", said, word, "held" if word == shown["found"] else "reversed"]]
    metric = shown.get("metric", "test_error")
    rows = []
    for one in found["contrasts"]:
        if _matches(one["a"], shown["a"]) and _matches(one["b"], shown["b"]) and one["metric"] == metric:
            published = shown.get("published")
            rows.append([name, f"{one['a']} against {one['b']}, {_metric(one)}"])
            rows[-1] += [_difference(one) + _waiting(one, found) + _beside(one, published), one["verdict"]]
            rows[-1].append(_holds(one, shown["expected"], published) + _seeds(one))
    return rows or [[name, _compared(shown), "", "", "not run"]]  # before the study had this contrast


def _matches(arm: str, asked: str) -> bool:
    return arm == asked or arm.startswith(f"{asked}[")


def _compared(shown: Mapping[str, Any]) -> str:
    if "arm" in shown:
        return f"gradients of {shown['arm']}"
    of = f", {CONVERGENCE.wording}" if shown.get("metric") == CONVERGENCE.name else ""
    return f"{shown['a']} against {shown['b']}{of}"


def _metric(contrast: Mapping[str, Any]) -> str:
    if contrast["metric"] == CONVERGENCE.name:
        return CONVERGENCE.wording
    words = str(contrast["metric"]).replace("_", " ").replace("train ", "training ")
    return words if contrast["target"] is None else f"{words} {contrast['target']:g}% validation error"


def _difference(contrast: Mapping[str, Any]) -> str:
    low, high, unit = contrast["ci_low"], contrast["ci_high"], contrast["unit"]
    if contrast["difference"] is None:
        done = "converged" if contrast["metric"] == CONVERGENCE.name else "learned"
        return plural(contrast["n"], "pair") if contrast["n"] else f"no pair in which both networks {done}"
    between = "" if low is None else f" (95% interval {interval((low, high), signed=True)})"
    said = f"{number(contrast['difference'], signed=True)} {unit}{between}, {plural(contrast['n'], 'pair')}"
    if contrast.get("mean_a") is None:
        return said
    return f"{number(contrast['mean_a'])} against {number(contrast['mean_b'])}, {said}"


def _waiting(contrast: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return at how many seeds there is no pair because a network has not converged."""
    if contrast["metric"] != CONVERGENCE.name or not 0 < contrast["n"] < found["seeds"]:
        return ""
    return f"; at {plural(found['seeds'] - contrast['n'], 'seed')} one or both have not converged"


def _seeds(contrast: Mapping[str, Any]) -> str:
    needed = contrast["needed_likely"]
    if contrast["verdict"] != "undecided" or contrast["difference"] is None:
        return ""
    if needed is None:
        return "; how many seeds would decide cannot be estimated"
    if not can_be_run(needed, contrast["n"]):
        return "; too small a difference to be decided by more seeds"
    return f"; about {roughly(math.ceil(needed))} seeds in all would decide"


def _beside(contrast: Mapping[str, Any], published: float | None) -> str:
    """Return where the published difference lies."""
    if published is None:
        return ""
    place = "" if contrast["ci_low"] is None else ", inside" if _covers(contrast, published) else ", outside"
    return f"; published {number(published, signed=True)}{place}"


def _covers(contrast: Mapping[str, Any], published: float) -> bool:
    low, high = contrast["ci_low"], contrast["ci_high"]
    return low is not None and bool(low <= published <= high)


def _holds(contrast: Mapping[str, Any], expected: str, published: float | None = None) -> str:
    """Return what a contrast's verdict says of a claim; none excludes a published difference inside the interval."""
    verdict = contrast["verdict"]
    if verdict == "undecided":
        return "undecided"
    if expected == "not worse":
        return "reversed" if verdict == "worse" else "held"
    if verdict == expected:
        return "held"
    if verdict == OPPOSITE.get(expected) or expected == "equivalent":
        return "reversed"
    inside = published is not None and _covers(contrast, published)
    return "undecided; the interval has both 0 and the published difference" if inside else "no difference"


def _outcome(words: Sequence[str]) -> str:
    """Return what all contrasts together say of a claim, in a few words."""
    counts = {word: sum(one.startswith(word) for one in words) for word in ("held", "reversed", "no difference")}
    open_ = sum(one.startswith("undecided") for one in words)
    missing = words.count("not run")
    decided = sum(counts.values())
    if missing == len(words):
        return "not run"
    kinds = {word: f"{word} {'in' if word == 'no difference' else 'by'}" for word, count in counts.items() if count}
    if not decided:
        said = "undecided"
    elif len(kinds) == 1:
        ((word, led),) = kinds.items()
        said = word
        if decided < len(words):
            said = f"{led} {decided} of {len(words)}"
        elif decided > 1:
            said = f"{led} both" if decided == 2 else f"{led} all {decided}"
    else:
        said = join([f"{led} {counts[word]}" for word, led in kinds.items()])
    rest = [f"{open_} undecided"] * bool(open_ and decided) + [f"{missing} not run"] * bool(missing)
    return said + (f" ({join(rest)})" if rest else "")


def _trained(
    entries: Sequence[Mapping[str, Any]], measured: Mapping[str, Any], studies: Sequence[Mapping[str, Any]]
) -> str:
    known = {one["study"]: one for one in studies}
    rows = []
    for entry in entries:
        study, run = load_study(entry["study"]), known.get(entry["study"], {})
        changed, same = _changed(run), set(run.get("set", {})) <= {"seeds"}
        full, near = measured.get(entry["study"]), measured.get(entry.get("near", ""))
        for one in study.published:
            stands = f"{one.value:g}"
            whole = _arm(full, one.arm, one.metric, one.value if same else None)
            shorter = _arm(near, entry.get("arms", {}).get(one.arm), one.metric)
            rows.append(
                [
                    f"`{entry['study']}`",
                    f"{one.arm}, {one.metric.replace('_', ' ').replace('train ', 'training ')}",
                    stands,
                    whole + (f"; changed: {changed}" if changed else "") if whole else "not run",
                    f"{shorter}, `{entry['near']}`" if shorter else "",
                    one.source,
                ]
            )
    text = (
        "Errors in per cent, mean ± standard deviation over seeds, of a full study where one has been run, with its"
        " distance from the published number in standard errors of the mean if nothing but the number of seeds was"
        " changed; and of a shorter study with fewer images and epochs, whose errors are expected to be larger."
    )
    return f"{text}\n\n" + _table(["Study", "Arm", "Published", "Measured", "Shorter study", "Source"], rows)


def _arm(found: Mapping[str, Any] | None, arm: str | None, metric: str, published: float | None = None) -> str:
    """Return the mean and standard deviation of an arm's error, with its distance from a published one."""
    values = (found or {}).get("arms", {}).get(arm)
    if values is None or values.get(f"{metric}_mean") is None:
        return ""
    mean, deviation, n = values[f"{metric}_mean"], values[f"{metric}_sd"], values["n"]
    said = f"{mean:.2f} ± {deviation:.2f} ({plural(n, 'seed')})" if deviation is not None else f"{mean:.2f} (1 seed)"
    if published is None or not deviation:
        return said
    return f"{said}, {number((mean - published) / (deviation / math.sqrt(n)), signed=True)} standard errors"


def _fast(entries: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    rows = [
        [
            one["method"],
            f"{one['accuracy']:g}",
            f"{one['flops']:.2g}",
            f"{one['seconds']:g}",
            one["machine"],
            one["source"],
        ]
        for one in entries["published"]
    ]
    for study in entries["studies"]:
        found = measured.get(study)
        if found is None:
            rows.append([f"`{study}`", "not run", "", "", "", ""])
            continue
        for name, arm in found["arms"].items():
            shown = ["diverged", f"{arm['flops']:.2g}", ""]
            if arm["n"]:
                accuracy = f"{100 - arm['test_error_mean']:.2f} ({plural(arm['n'], 'seed')})"
                shown = [accuracy, f"{arm['flops']:.2g}", f"{arm['seconds']:.0f}"]
            rows.append([f"`{study}`, {name}", *shown, _machine(found["machine"]), "measured"])
    text = (
        "Operations are those of training and of all evaluations, two for each multiply-add; of published methods, as"
        " published. On a CPU, each network was trained by one thread, two of them at once."
    )
    head = ["Method", "Test accuracy, %", "FLOPs", "Seconds", "Machine", "Source"]
    return f"{text}\n\n" + _table(head, rows)


def _machine(machine: Mapping[str, Any]) -> str:
    return str(machine["cpu"] if machine["device"] == "cpu" else machine["device"])


def _computed(entries: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for entry in entries:
        arguments = dict(entry["network"])
        name = arguments.pop("family")
        info = inspect_network(family(name, arguments), *KINDS.get(name, CIFAR))
        exact = entry["quantity"] == "parameters"
        here = f"{info.parameters:,}" if exact else f"{info.multiply_adds / 1e9:.3f}"
        published = f"{entry['published']:,}" if isinstance(entry["published"], int) else str(entry["published"])
        shown = join([f"{key} {value}" for key, value in arguments.items()])
        rows.append([f"`{name}`, {shown}", entry["quantity"], published, here, entry["source"]])
    return _table(["Network", "Quantity", "Published", "Built", "Source"], rows)


def _changed(entry: Mapping[str, Any]) -> str:
    return join([f"{key} {_setting(key, value)}" for key, value in entry.get("set", {}).items()])


def _setting(key: str, value: Any) -> str:
    """Return what a setting is changed to: several seeds that follow each other as the first and the last."""
    if key != "seeds" or not isinstance(value, list) or len(value) < 2 or not isinstance(value[0], int):
        return str(value)
    return f"{value[0]} to {value[-1]}" if value == [*range(value[0], value[0] + len(value))] else str(value)


def _studies(entries: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> str:
    rows = []
    for entry in entries:
        name, found = entry["study"], measured.get(entry["study"])
        changed = _changed(entry)
        if found is None:
            rows.append([f"`{name}`", changed, "not run", "", "", "", ""])
            continue
        images = "all" if found["train"] is None else f"{found['train']:,}"
        row = [plural(found["trials"], "trial"), str(found["epochs"]), images, f"{found['hours']:g}"]
        rows.append(
            [
                f"`{name}`",
                changed,
                *row,
                f"{found['date']}, {_machine(found['machine'])}, PyTorch {found['machine']['torch']}",
            ]
        )
    text = (
        "`leadline run STUDY` repeats each, with `--set` for what is changed. Hours are those of all trials together,"
        " with one thread each, on a machine that did other work as well; on a card, several trials ran at once."
    )
    head = ["Study", "Changed", "Trials", "Epochs", "Training images", "Hours", "When and where"]
    listed = {entry["study"] for entry in entries}
    missing = ", ".join(f"`{name}`" for name in ready_studies() if name not in listed)
    return f"{text}\n\n{_table(head, rows)}\n\nReady studies that have not been run for this page: {missing}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
