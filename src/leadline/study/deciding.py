"""A study with `decide` run in rounds: what each shows says which seeds the next one has."""

import time
from contextlib import AbstractContextManager
from dataclasses import replace

from leadline.analysis.verdict import decided_line, round_line
from leadline.reports.stored import analyze_stored
from leadline.running.driving import Outcome, Screen
from leadline.seeds import seed_of
from leadline.store import Store
from leadline.study.expand import ExpandedStudy
from leadline.study.pipeline import Run, register
from leadline.study.rounds import Linked, resume, with_seeds


def run_in_rounds(
    study: ExpandedStudy, store: Store, run: Run, screen: Screen, logging: AbstractContextManager[None]
) -> Outcome:
    """Run a study round by round until its contrasts are decided or have all seeds, reporting the result of each round.

    What to run next depends only on the ledger, so that several drivers run the same rounds.
    """
    started = time.monotonic()
    study = merge_with_stored(study, store)
    register(study, store)
    findings = analyze_stored(store, study)
    reported = sum(bool(one.looks) for one in findings.rounds)
    with logging:
        while True:
            outcome = run(study)
            findings = analyze_stored(store, study)
            over = [one for one in findings.rounds if one.looks]
            for one in over[reported:]:
                screen.say(round_line(findings, one))
            reported = max(reported, len(over))
            if outcome.interrupted or outcome.counts.get("failed"):
                break
            study = merge_with_stored(study, store)
            last = findings.rounds[-1]
            wider = with_seeds(study, last.seeds)
            if outcome.complete and last.looks and wider == study:
                break
            store.register(study := wider)
    return replace(outcome, seconds=time.monotonic() - started, decided=decided_line(findings))


def merge_with_stored(study: ExpandedStudy, store: Store) -> ExpandedStudy:
    """Return a study with `decide` with the seeds that its arms have in the ledger and its original plan."""
    name = study.name
    if not any(one.name == name for one in store.studies()):
        return resume(study, (), None)
    frame = store.trials_frame(name)
    columns = (frame[column] for column in ("arm", "seed", "trial", "state"))
    linked = [
        Linked(arm, seed_of(seed), trial, state in ("finished", "diverged"))
        for arm, seed, trial, state in zip(*columns, strict=True)
    ]
    before = store.study(name)
    return resume(study, linked, before.expand() if before.spec.get("decide") else None)
