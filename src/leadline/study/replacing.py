"""Whether a study continues the one of its name in the ledger, or would take trials with results away from it."""

from typing import Any

from leadline.errors import SpecError
from leadline.specs import TrialSpec
from leadline.store import Store
from leadline.study.expand import ExpandedStudy
from leadline.study.origin import FREE, UNSAID, find_differences
from leadline.text import plural

_SHOWN = 3


def make_room(study: ExpandedStudy, store: Store, replace: bool) -> str:
    """Refuse a study that would take results away from the one of its name, or rename that one.

    Seeds, arms, levels and contrasts may be added, and custom code may change, whose earlier results stay apart. Where
    a trial that has begun would no longer belong to the study, because a setting has changed or an arm or a seed is
    gone, it is another study.

    Args:
        study: about to be registered.
        store: the ledger.
        replace: whether the earlier study may give up its name.

    Returns:
        Under which name the earlier study is kept; empty: it continues.

    Raises:
        SpecError: results would be taken away, and `replace` is False.
    """
    known = {one.name for one in store.studies()}
    if study.name not in known or not (lost := _lost(study, store)):
        return ""
    count, total, differences = lost
    if not replace:
        what = (
            f" ({'; '.join(differences[:_SHOWN])}{'; ...' if len(differences) > _SHOWN else ''})" if differences else ""
        )
        raise SpecError(
            f"study {study.name}: {count} of the {plural(total, 'trial')} that have been run under this name would no"
            f" longer belong to it{what}; choose another name with --as NAME, or use --replace, which keeps the earlier"
            " study under another name"
        )
    number = next(n for n in range(1, len(known) + 2) if f"{study.name}.{n}" not in known)
    store.rename_study(study.name, f"{study.name}.{number}")
    return f"{study.name}.{number}"


def _lost(study: ExpandedStudy, store: Store) -> tuple[int, int, list[str]] | None:
    """Return how many trials with results a study of this name would lose, of how many, and what differs."""
    frame = store.trials_frame(study.name)
    # while other workers run the study, its waiting trials count too: they have an order from someone else
    begun = frame if frame["state"].eq("running").any() else frame[frame["state"] != "waiting"]
    record = store.study(study.name)
    differences = [
        "{}: {} before, {} now".format(one.key, *one.shown)
        for one in find_differences(record.spec, study.spec.model_dump(mode="json"))
        if one.key.partition(".")[0] not in UNSAID
    ]
    if study.spec.tune is not None or record.spec.get("tune"):
        # what is trained follows from a search, which is repeated where anything that it depends on is another
        others = [one for one in differences if not one.startswith(FREE)]
        return (len(begun), len(begun), others) if others and len(begun) else None
    now = {(arm.name, trial.seed_name): trial for arm, trial in study.trials()}
    keys = list(zip(begun["arm"], begun["seed"], strict=True))
    hashes = {key: now[key].content_hash for key in keys if key in now}
    if [hashes.get(key) for key in keys] == begun["trial"].tolist():
        return None
    try:
        before = {(arm.name, trial.seed_name): _settings(trial) for arm, trial in record.expand().trials()}
    except SpecError:  # such as a module that is gone, which is said elsewhere
        return None
    count = sum(before.get(key) != (_settings(now[key]) if key in now else None) for key in keys)
    return (count, len(begun), differences) if count else None


def _settings(trial: TrialSpec) -> dict[str, Any]:
    """Return a trial's settings without the identity of code, whose changes make new trials beside the old ones."""
    settings: dict[str, Any] = trial.model_dump(mode="json", exclude={"code"})
    return settings
