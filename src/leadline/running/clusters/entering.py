"""Find the study that workers share in the store, or register it."""

from collections.abc import Callable
from pathlib import Path

from leadline.store import Store
from leadline.study.expand import ExpandedStudy
from leadline.study.load import load_study
from leadline.study.pipeline import prepare, resolve
from leadline.study.ready import is_study
from leadline.study.replacing import make_room


def enter(
    study: str,
    settings: dict[str, object],
    runs: Path,
    store_url: str | None,
    data_dir: Path | None,
    check: Callable[[ExpandedStudy], None] = lambda study: None,
) -> str:
    """Return a study's name, registering it in the store if missing; any number of workers may call this at once.

    Args:
        study: the name of a study in the store or of a ready study, or a YAML file.
        settings: overrides; if there are any, the study is registered again.
        runs: folder of the checkpoints and of the default store.
        store_url: the store's address; None: inside the runs folder.
        data_dir: folder of the data sets; None: the user's cache.
        check: raises an error if the study must not be entered, and nothing is registered then.

    Raises:
        SpecError: it cannot be read, its next trials depend on the results of earlier ones, or other results are stored
            under its name.
        StoreError: the store cannot be used, or has no such study.
        DataError: its data are missing.
    """
    a_file = Path(study).suffix.lower() in (".yaml", ".yml")
    if not (a_file or settings or is_study(study)):
        with Store.open_existing(runs, store_url) as store:
            check(store.study(study).expand())
        return study
    with Store.open(runs, store_url) as store:
        if not (a_file or settings) and any(one.name == study for one in store.studies()):
            check(store.study(study).expand())
            return study
        loaded = load_study(study, settings)
        check(loaded)
        entered = resolve(prepare(loaded, data_dir), store)
        if not _has_all_trials(store, entered):  # a worker adds to a study, and takes nothing from it
            make_room(entered, store, replace=False)
            store.register(entered)
    return entered.name


def _has_all_trials(store: Store, study: ExpandedStudy) -> bool:
    """Return whether the store's study of this name has every trial of a study."""
    if not any(one.name == study.name for one in store.studies()):
        return False
    frame = store.trials_frame(study.name)
    there = set(zip(frame["arm"], frame["trial"], strict=True))
    return all((arm.name, trial.content_hash) in there for arm, trial in study.trials())
