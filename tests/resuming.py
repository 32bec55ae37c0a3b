"""Training in parts against training in one go, to the bit: every setting of a recipe passes this."""

from collections.abc import Callable

import torch

from leadline.data.batches import Data
from leadline.parts.metrics.record import Record
from leadline.specs import ProbeSpec, TrainingSpec
from leadline.training import TrainState, train


def assert_resumes_to_the_bit(
    init: Callable[[], TrainState],
    data: Data,
    spec: TrainingSpec,
    stops: tuple[int, ...],
    probes: ProbeSpec = ProbeSpec(),  # noqa: B008
) -> list[Record]:
    """Check that training gives the same records and tensors when it is stopped after so many steps; return records.

    Each part begins with a new state that has loaded the tensors of the part before it, as after a crash.
    """
    whole = init()
    records = _measured(list(train(whole, data, spec, 1, probes)))
    state, parts = init(), []
    for stop in stops:
        pending: list[Record] = []
        epoch = state.epoch
        for record in train(state, data, spec, 1, probes, lambda step, stop=stop: step == stop):
            if record.split != "batch":
                pending.append(record)
            if state.epoch > epoch:  # what was measured since the end of an epoch is measured again
                epoch = state.epoch
                parts += pending
                pending = []
            if record.split == "batch" and record.step == stop:
                break
        else:
            raise AssertionError(f"training ended before step {stop}")
        tensors = {name: tensor.clone() for name, tensor in state.tensors().items()}
        fresh = init()
        fresh.load(tensors, state.step, state.epoch)
        state = fresh
    parts += list(train(state, data, spec, 1, probes))
    assert _measured(parts) == records
    expected, found = whole.tensors(), state.tensors()
    assert expected.keys() == found.keys()
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not different, different
    assert whole.test_outputs is not None and state.test_outputs is not None
    assert (whole.test_outputs.predicted == state.test_outputs.predicted).all()
    return records


def _measured(records: list[Record]) -> list[Record]:
    return [record for record in records if record.split not in ("time", "batch")]
