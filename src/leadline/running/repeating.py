"""A stored trial trained once more, to see whether it comes to the same results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from leadline.running.trial import init_state, load_data
from leadline.store import Store, verify_spec
from leadline.training import choose_device, train
from leadline.training.layerwise import pretrain_network

FINAL = "final-"
"""What the splits of results at the end of training begin with."""


def repeats(store: Store, study: str, trial: str, data_dir: Path | None, device: str) -> bool:
    """Train a finished trial of a study again, on one thread, and return whether its final results are the same bits.

    Args:
        store: where it is stored, which is not changed.
        study: its study.
        trial: its hash.
        data_dir: the folder of the data sets; None: the default one.
        device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.

    Raises:
        StoreError: there is no such study or trial.
        Diverged: this time the training loss was not finite.
    """
    spec, place = verify_spec(trial, store.trial(trial).spec), choose_device(device)
    with _one_thread():
        data = load_data(spec, data_dir, place)
        state = init_state(spec, data, place, data_dir)
        if state.pretraining is not None:
            for _ in pretrain_network(state.pretraining, state.model, data, spec.random_seed):
                pass
            state.pretraining = None
        records = list(train(state, data, spec.training, spec.random_seed, spec.probes))
    again = {(one.split, one.name): one.value for one in records if one.split.startswith(FINAL)}
    stored = store.records_frame(study)
    stored = stored[stored["trial"].eq(trial) & stored["split"].str.startswith(FINAL)]
    return again == dict(zip(zip(stored["split"], stored["name"], strict=True), stored["value"], strict=True))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
