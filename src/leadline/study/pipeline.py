"""A study from its specification to its last trial: expand, match, search, run in rounds.

Each step is a function of the study and the ledger, so that a study that was killed goes on where it was, and several
drivers of one study take the same steps. A study is registered here, once its trials are known, and nowhere else.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from leadline.data import batches
from leadline.data.formats.examination import describe_changes
from leadline.data.threads import count_cores
from leadline.distributed.launch import assign_devices
from leadline.distributed.processes import check_guard
from leadline.distributed.torchrun import Torchrun
from leadline.errors import SpecError
from leadline.networks.modules import check_last_batch
from leadline.parts.reference import pack_objects
from leadline.parts.trust import trusted_names
from leadline.running.checkpoints import TEN_MINUTES, Interval
from leadline.running.driving import SILENT, Outcome, Screen, run_trials
from leadline.running.executors import Executor
from leadline.running.gang import check_gang, has_tf32
from leadline.running.job import PATIENCE_SECONDS, Job
from leadline.running.logging import Log, logged
from leadline.store import Store, StudyRecord
from leadline.store.artifacts import folder_url
from leadline.study.check import check_networks
from leadline.study.expand import ExpandedStudy
from leadline.study.match import match
from leadline.study.planning.capacity import (
    ask_free_memory,
    card_capacity,
    default_workers,
    describe_capacity,
    describe_sharing,
)
from leadline.study.replacing import make_room
from leadline.text import join, plural
from leadline.training import choose_device, device_line
from leadline.training.numerics import check_precision

if TYPE_CHECKING:
    from leadline.study.search import Search

Run = Callable[[ExpandedStudy], Outcome]
"""Runs the trials of a study that is registered."""

_AGAIN = "run again; the earlier results are kept separately and are not used in the verdict."


def run_study(
    study: ExpandedStudy,
    runs: Path,
    store_url: str | None,
    data_dir: Path | None,
    workers: int | None,
    device: str,
    screen: Screen = SILENT,
    executor: Executor | None = None,
    checkpoint_every: Interval = TEN_MINUTES,
    devices: int | None = None,
    artifacts: str | None = None,
    replace_study: bool = False,
    trials_per_worker: int = 1,
    log: Log | None = None,
) -> Outcome:
    """Register a study and run its unfinished trials.

    Args:
        study: what to run.
        runs: folder of the checkpoints and of the default store.
        store_url: the store's address; None: inside the runs folder.
        data_dir: folder of the data sets; None: the user's cache.
        workers: processes of this machine; None: one per core, on CUDA no more than there is memory for; 0: inside
            this one.
        device: cpu, cuda, cuda:N, mps or auto.
        screen: display for the progress; `SILENT` shows nothing.
        executor: runs the trials elsewhere, on a device of this name there; None: this machine does.
        checkpoint_every: between two checkpoints of a trial.
        devices: that train each trial together; None: as many as the study says.
        artifacts: a folder or a URL where checkpoints are kept as well; None: nowhere.
        replace_study: whether a study of this name whose results do not belong to this one may be renamed.
        trials_per_worker: that each process trains at once.
        log: where its runs are written as they train; None: nowhere.

    Raises:
        LeadlineError: what makes the whole study impossible: its data, its store, its device, a network that cannot
            take the data's images, a tracker that is not installed.
    """
    if log is not None:
        log.check()
        check_guard("`leadline export-runs` after it, without log")
    together = devices or study.spec.devices
    if executor is None and (workers != 0 or together > 1):
        check_guard("workers=0" if workers != 0 else "devices=1")
    chosen = None if executor is not None else choose_device(device)
    if chosen is not None:
        _check_device(study, chosen, together)
    if trials_per_worker > 1:
        if executor is not None:
            raise SpecError(
                f"{trials_per_worker} trials per worker: only workers of this machine train several trials each; use"
                f" the executor's own means"
            )
        check_gang(study, trials_per_worker, devices, chosen)
    study = prepare(study, data_dir, screen)
    url = None if artifacts is None else folder_url(artifacts)
    objects = (
        pack_objects({name for used in study.resolved.code.values() for name in used})
        if workers != 0 or executor
        else None
    )
    where, trusted = device if chosen is None else str(chosen), trusted_names()
    job = Job(
        study.name,
        runs,
        store_url,
        data_dir,
        where,
        1,
        checkpoint_every,
        devices,
        url,
        objects,
        trials_at_once=trials_per_worker,
        trusted=trusted,
    )
    with Store.open(runs, store_url) as store:
        store.patience = PATIENCE_SECONDS  # from here on: an address that is wrong is said at once
        if study.decide is not None:
            from leadline.study.deciding import merge_with_stored, run_in_rounds  # seconds of imports that few need

            now = merge_with_stored(study, store)
        else:
            now = study
        if kept := make_room(now, store, replace_study):
            screen.say(f"The earlier study {study.name} is kept as {kept}, with its results.")
        for line in _changes(study, store):
            screen.say(line)
        if chosen is not None:
            if device == "auto":
                screen.say(device_line(chosen))
            workers = _place(study, data_dir, chosen, workers, together, trials_per_worker, screen)

        def run(asked: ExpandedStudy) -> Outcome:
            return run_trials(store, replace(job, study=asked.name), executor or workers or 0, screen)

        if (search := _search_of(study)) is not None:
            found = _search(search, store, run, screen)
            if isinstance(found, Outcome):
                return found
            study = found
        logging = logged(replace(job, study=study.name), log, screen.say)
        if study.decide is not None:
            return run_in_rounds(study, store, run, screen, logging)
        register(study, store)
        with logging:
            return run(study)


def _check_device(study: ExpandedStudy, device: torch.device, devices: int) -> None:
    """Check that so many devices for a trial are there, and compute in the precisions of its arms.

    Raises:
        SpecError: they are not, or do not.
    """
    if not Torchrun.current():
        assign_devices(device, devices)
    if device.type != "cuda":  # to ask a card would take some of it; its worker does
        for arm in study.arms:
            check_precision(device, arm.trial.training.precision)


def _place(
    study: ExpandedStudy,
    data_dir: Path | None,
    device: torch.device,
    workers: int | None,
    devices: int,
    trials_per_worker: int,
    screen: Screen,
) -> int:
    """Return the number of workers; say why there are so many if the user did not, and which cards they share."""
    if workers is None and device.type == "cuda":
        room = card_capacity(study, data_dir, device, devices, count_cores(), ask_free_memory(device))
        screen.say(describe_capacity(room))
        if trials_per_worker == devices == 1 and room.workers > len(room.free) and not has_tf32(study):
            screen.say("Small networks may train faster several at once in one process: --trials-per-worker 4.")
        workers = (
            min(len(room.free), math.ceil(room.workers / trials_per_worker)) if trials_per_worker > 1 else room.workers
        )
    elif workers is None:
        workers = math.ceil(default_workers(device, devices, count_cores()) / trials_per_worker)
    if not Torchrun.current():
        more = study.decide is not None or study.spec.tune is not None  # trials than are known by now
        trials = math.inf if more else sum(1 for _ in study.trials())
        processes = max(1, round(min(workers, trials)))
        if line := describe_sharing(device, processes, devices, trials_per_worker):
            screen.say(line)
    return workers


def prepare(study: ExpandedStudy, data_dir: Path | None, screen: Screen = SILENT) -> ExpandedStudy:
    """Return a study with its arms matched, after checking that the data exist and the networks accept them.

    Raises:
        LeadlineError: the data are missing, or a network does not accept them.
    """
    code = {arm.name: arm.trial.with_code(data_dir).code for arm in study.asked}
    for note in check_networks(study, data_dir):
        screen.say(note)
    study = match(study.resolve(code={arm: used for arm, used in code.items() if used}), data_dir)
    for spec in {arm.trial.data for arm in study.arms}:
        data = batches.load(spec, data_dir)  # downloads and checks once, before the workers start
        for note in data.notes:
            screen.say(note)
        for arm in study.arms:
            if arm.trial.data == spec:
                recipe, name = arm.trial.training, f"arm {arm.name}"
                check_last_batch(arm.trial.network, data.shape, data.classes, data.train_size, recipe, name)
    for sentence in study.remarks:
        screen.say(sentence)
    return study


def resolve(study: ExpandedStudy, store: Store) -> ExpandedStudy:
    """Return a study that `prepare` returned with what the ledger's search chose for it.

    Raises:
        SpecError: its search has not ended, or it decides while seeds are added: its next trials depend on what the
            ones before give.
    """
    search = _search_of(study)
    if study.decide is not None or (search is not None and search.next(store) is not None):
        raise SpecError(
            f"study {study.name}: its next trials depend on the results of earlier ones; run it with `leadline run`,"
            f" on as many machines as you like"
        )
    return study if search is None else search.tuned()


def _changes(study: ExpandedStudy, store: Store) -> Iterator[str]:
    """Yield a line for each piece of custom code or data file that has changed since the study was last run.

    Another says which trials this version of Leadline trains or measures otherwise than the one that ran them.
    """
    names = [one.name for one in store.studies()]
    if study.name not in names:
        yield from _changes_since_others(study, [store.study(name) for name in names])
        return
    try:
        before = store.study(study.name).expand()
    except SpecError as error:  # such as a missing module, whose users cannot be compared
        yield f"The version of {study.name} that was last run cannot be read any more: {error}"
        return
    frame = store.trials_frame(study.name)
    ended = frame[frame["state"].isin(("finished", "diverged"))]
    changed: dict[tuple[str, str], set[str]] = {}  # what has changed, and how -> the arms that use it
    for arm, used in study.resolved.code.items():
        for name, identity in used.items():
            earlier = before.resolved.code.get(arm, {}).get(name, "")
            if earlier != identity:
                changed.setdefault((name, _how(earlier, identity)), set()).add(arm)
    for (name, how), arms in changed.items():
        if count := int(ended["arm"].isin(arms).sum()):
            of = f"{plural(count, 'trial')} of {join(sorted(arms))} ended"
            yield f"{name} {how} since {of}: the trials are {_AGAIN}"
    now = {(arm.name, trial.seed_name): trial.content_hash for arm, trial in before.trials()}
    keys = zip(ended["arm"], ended["seed"], strict=True)
    revised = ended[[now.get(key, trial) != trial for key, trial in zip(keys, ended["trial"], strict=True)]]
    if len(revised):
        yield (
            f"This version of Leadline trains or measures {plural(len(revised), 'trial')} of"
            f" {join(sorted(set(revised['arm'])))} differently from the version that ran them: the trials are {_AGAIN}"
        )


def _changes_since_others(study: ExpandedStudy, others: Sequence[StudyRecord]) -> Iterator[str]:
    """Yield a line for each piece of custom code or data file of a new study that other studies used as it was then."""
    now = {name: identity for used in study.resolved.code.values() for name, identity in used.items()}
    for name, identity in now.items():
        earlier = {
            other.name: used[name]
            for other in others
            for used in (other.resolved.get("code") or {}).values()
            if used.get(name, identity) != identity
        }
        if earlier:
            how = _how(list(earlier.values())[-1], identity)
            yield f"{name} {how} since {join(list(earlier))} last ran: no trials are shared with {study.name}."


def _how(before: str, now: str) -> str:
    """Say how custom code or a data file has changed; empty `before`: it had no identity, as images of old versions."""
    if not before:
        return "has become part of a trial's identity"
    what = describe_changes(before, now)
    return f"has changed ({what})" if what else "has changed"


def register(study: ExpandedStudy, store: Store) -> None:
    """Enter a study's trials in the ledger; those that have failed are tried again."""
    store.register(study)
    store.requeue_failed(study.name)


def _search_of(study: ExpandedStudy) -> "Search | None":
    if study.spec.tune is None:
        return None
    from leadline.study.search import Search  # and all that judges results, seconds of imports

    return Search(study)


def _search(search: "Search", store: Store, run: Run, screen: Screen) -> ExpandedStudy | Outcome:
    """Search for the best values of every arm; return the study with them, or the outcome of an incomplete search."""
    from leadline.analysis.verdict.tuned import tuning_words

    while (asked := search.next(store)) is not None:
        register(asked, store)
        outcome = run(asked)
        if outcome.interrupted or outcome.counts.get("failed"):
            return outcome
    tuned = search.tuned()
    screen.say(tuning_words(search.tune, tuned.resolved.chosen or {}))
    return tuned
