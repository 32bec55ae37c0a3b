"""Checking a store: its database, what it says of studies and trials, and the files of checkpoints."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from leadline.errors import LeadlineError, StoreError
from leadline.running.checkpoints import read_verified
from leadline.seeds import SeedName
from leadline.specs import TrialSpec
from leadline.store import Store, TrialRecord, verify_spec
from leadline.store.cleaning import StoredFiles, find_strays
from leadline.store.schema import SETTLED
from leadline.text import plural

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a store."""

    place: str  # such as `trial 0123456789ab` or the path of a file
    what: str
    harmless: bool = False  # whether it only takes space

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def check_store(store: Store, progress: Progress = lambda done, total: None) -> Iterator[Finding]:
    """Yield what is wrong with a store, without changing anything.

    The database is checked by its own means. Then every study is compared with the trials that belong to it, every
    trial's specification with its hash, its results with its state, and every checkpoint that the ledger names with its
    checksum, trial and epoch. Last come trials and files that nothing needs, which `leadline clean` removes.

    Args:
        store: an existing store.
        progress: called with the number of trials checked and their total.
    """
    yield from (Finding("database", line) for line in store.check_database())
    for summary in store.studies():
        try:
            yield from _check_study(store, summary.name)
        except LeadlineError as error:
            yield Finding(f"study {summary.name}", str(error))
    files = store.files()
    for number, one in enumerate(files, start=1):
        place = f"trial {one.trial[:12]}"
        try:
            yield from (Finding(place, what) for what in _check_trial(store, one))
        except LeadlineError as error:
            yield Finding(place, str(error).removeprefix(f"{place}: "))
        progress(number, len(files))
    yield from _find_leftovers(store, files)


def _check_study(store: Store, name: str) -> Iterator[Finding]:
    place = f"study {name}"
    study = store.study(name).expand()
    if study.name != name:
        yield Finding(place, f"its specification is of a study named {study.name}")
    if study.unresolved:
        return
    frame = store.trials_frame(name)
    linked = dict(zip(zip(frame["arm"], frame["seed"], strict=True), frame["trial"], strict=True))
    asked = {(arm.name, spec.seed_name): spec for arm, spec in study.trials()}
    for keys, what in ((asked.keys() - linked.keys(), "missing"), (linked.keys() - asked.keys(), "not asked for")):
        if keys:
            yield Finding(place, f"{plural(len(keys), 'trial')} {what}, such as {_path(name, min(keys))}")
    for key in sorted(asked.keys() & linked.keys()):
        if not asked[key].had_hash(linked[key]):
            yield Finding(place, f"{_path(name, key)} is trial {linked[key][:12]}, which is trained otherwise")


def _path(study: str, trial: tuple[str, SeedName]) -> str:
    return f"{study}/{trial[0]}/{trial[1]}"


def _check_trial(store: Store, files: StoredFiles) -> Iterator[str]:
    record = store.trial(files.trial)
    spec = verify_spec(record.trial, record.spec)
    if spec.seed != record.seed:
        yield f"its seed is {record.seed}, but {spec.seed} in its specification"
    if record.state == "finished":
        yield from _check_results(store, record, spec)
    named = [(record.checkpoint, record.checkpoint_epoch), (record.earlier_checkpoint, record.earlier_epoch)]
    for name, epoch in named[: 1 if record.state in SETTLED else 2]:  # the earlier one is removed at the end
        if name is not None:
            try:
                read_verified(store, record.trial, spec, name, epoch or 0)
            except StoreError as error:
                yield str(error)


def _check_results(store: Store, record: TrialRecord, spec: TrialSpec) -> Iterator[str]:
    if record.checkpoint is None:
        yield "has finished, but has no checkpoint of its network"
    elif record.checkpoint_epoch != spec.training.epochs and spec.training.early_stopping is None:
        yield f"has finished after {record.checkpoint_epoch} of {spec.training.epochs} epochs"
    if not store.has_results(record.trial):
        yield "has finished, but its records or the outputs of its network are missing"


def _find_leftovers(store: Store, files: Sequence[StoredFiles]) -> Iterator[Finding]:
    orphans = [one for one in files if one.is_orphan]
    if orphans:
        yield Finding("trials", f"{len(orphans)} belong to no study; `leadline clean` removes them", harmless=True)
    for path in find_strays(store.checkpoints, files):
        yield Finding(str(path), "belongs to no trial; `leadline clean` removes it", harmless=True)
