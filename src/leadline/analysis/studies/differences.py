"""Whether two arms of stored studies can be compared, and what differs between them besides the seed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from leadline.analysis.studies.arms import Side
from leadline.data.datasets import CustomDataset
from leadline.data.datasets.parity import Parity
from leadline.errors import StoreError
from leadline.parts.metrics import CurveMetric, Metric
from leadline.seeds import SeedName
from leadline.specs import TrialSpec
from leadline.study.origin import Difference, find_differences
from leadline.text import join

SHOWN = 6
"""Differences of networks that are written out; more are counted."""

# fmt: off
NOT_OF_THE_TEST = (
    "train", "validation", "test", "subset_seed", "resample", "task", "path",
    "label_noise", "normalise", "augment", "size", "resize", "channels", "background", "corrupt",
)
# fmt: on
"""Keys of a data set that are looked at by themselves, or do not say which images there are to test on."""

ENVIRONMENT = ("leadline", "torch", "device", "devices")
"""Facts about where trials ran that may change more than the last bits, or that say which machine it was."""


# --- what cannot be compared


def refuse_others(a: Side, b: Side, kinds: Sequence[Metric]) -> None:
    """Check that two arms can be compared.

    Raises:
        StoreError: they are one arm, or were trained for different tasks, tested on other images, or for other
            numbers of epochs where the metric is a mean over them.
    """
    one, two = a.trial, b.trial
    if (_plain(a), one.network, one.code) == (_plain(b), two.network, two.code):
        raise StoreError(
            f"{a.name} and {b.name} have the same network, data and training, so their trials are the same at each seed"
            " and there is nothing to compare; name another arm"
        )
    if one.data.task != two.data.task:
        raise _refusal(a, b, "tasks", *(_task(side.trial) for side in (a, b)))
    files = [side.files for side in (a, b)]
    located = not all(files)  # files are known by what they hold, wherever they are, or else by their path
    if type(one.data) is not type(two.data) or (located and one.data.display_name != two.data.display_name):
        raise _refusal(a, b, "data sets", one.data.display_name, two.data.display_name)
    if not located and sorted(files[0].values()) != sorted(files[1].values()):
        shown = [join([f"{path} ({text[:19]})" for path, text in own.items()], 2) for own in files]
        raise _refusal(a, b, "files of data", *shown)
    for found in find_differences(_test_images(a), _test_images(b)):
        raise _refusal(a, b, f"test images (data.{found.key})", *found.shown)
    _refuse_other_labels(a, b)
    epochs = [side.trial.training.epochs for side in (a, b)]
    stopping = [side.name for side in (a, b) if side.trial.training.early_stopping is not None]
    for kind in kinds:
        if isinstance(kind, CurveMetric) and stopping:
            raise StoreError(
                f"{stopping[0]} stops early, after a number of epochs that differs from trial to trial, but {kind.name}"
                " is a mean over epochs and needs equal numbers; compare another with --value, such as test_error"
            )
        if isinstance(kind, CurveMetric) and epochs[0] != epochs[1]:
            raise StoreError(
                f"{a.name} and {b.name} are trained for {epochs[0]} and {epochs[1]} epochs, but {kind.name} is a mean"
                " over epochs and needs equal numbers; compare another with --value, such as test_error"
            )
        held = [side.designed.counts.validation for side in (a, b)]
        if kind.on_validation and held[0] != held[1]:
            raise _refusal(a, b, f"validation images, which {kind.name} is measured on", *map(str, held))


def _refusal(a: Side, b: Side, what: str, one: str, two: str) -> StoreError:
    return StoreError(
        f"{a.name} and {b.name} cannot be compared: they have different {what}: {one} and {two}; run one of the studies"
        " again with the data of the other"
    )


def _task(trial: TrialSpec) -> str:
    task = trial.data.task
    return task if isinstance(task, str) else task.module


def _test_images(side: Side) -> dict[str, Any]:
    """Return what decides which images of its data an arm is tested on."""
    data = side.trial.data
    plain = data.model_dump(mode="json")
    found = {key: value for key, value in plain.items() if key not in NOT_OF_THE_TEST}
    found["test"] = side.designed.counts.test
    if data.test is not None or isinstance(data, CustomDataset | Parity):
        found["subset_seed"] = data.subset_seed
    if data.resample == "split":
        found["resample"] = data.resample
    return found


def _refuse_other_labels(a: Side, b: Side) -> None:
    """Check that the test images have the same labels in the same order, where predictions are known.

    Raises:
        StoreError: they do not.
    """
    one, two = _labels(a), _labels(b)
    if a.trial.data.resample == "split":  # drawn again at every seed
        pairs = [(one[seed], two[seed]) for seed in one.keys() & two.keys()]
    else:
        pairs = [(found, other) for found, other in zip([*one.values()][:1], [*two.values()][:1], strict=False)]
    for found, other in pairs:
        if not np.array_equal(found, other):
            raise _refusal(a, b, "test images", f"{len(found):,}", f"{len(other):,} with other labels")


def _labels(side: Side) -> dict[SeedName, Any]:
    """Return seed -> the labels of the images that its trial was tested on, where predictions are known."""
    found = zip(side.seeds, (side.stored.outputs.get(trial) for trial in side.trials["trial"]), strict=True)
    return {seed: outputs.labels for seed, outputs in found if outputs is not None}


# --- what differs


def differences(a: Side, b: Side) -> Iterator[str]:
    """Yield what differs between two arms besides seed and probes, in sentences with the first arm's value first."""
    other = a.trial.network != b.trial.network
    asked = [f"{one.key} ({' and '.join(one.shown)})" for one in _differing(a, b)]
    if asked:
        yield f"{'Besides the network, trials' if other else 'Trials'} differ in {join(asked, len(asked))}."
    else:
        yield "Trials differ in nothing but the network."
    if other:
        yield from _networks(a, b)
    if isinstance(a.trial.data, CustomDataset) and a.code[a.trial.data.module] != b.code[a.trial.data.module]:
        yield "The code that makes their data is not the same: that test images are, their labels alone show."
    ran = [f"{key} ({' and '.join(found)})" for key in ENVIRONMENT if (found := _places(a, b, key))]
    if ran:
        yield f"They ran with other versions or devices: {join(ran)}."


def _differing(a: Side, b: Side) -> Iterator[Difference]:
    """Yield the keys of trials whose values differ, and custom code and weights that both use in other versions."""
    yield from _spelled_out(_plain(a), _plain(b))
    for found in find_differences(a.code, b.code):
        if found.before is not None and found.now is not None:
            yield found._replace(key=f"the code of {found.key}", before=str(found.before)[:19], now=str(found.now)[:19])
    if a.weights != b.weights and (file := a.trial.training.weights) == b.trial.training.weights:
        yield Difference(f"the content of training.weights {file}", str(a.weights)[:19], str(b.weights)[:19])


def _spelled_out(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the keys whose values differ, key by key also where one has a mapping and the other nothing."""
    for found in find_differences(one, two):
        before, now = ({} if value is None else value for value in (found.before, found.now))
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from find_differences(before, now, f"{found.key}.")
        else:
            yield found


def _plain(side: Side) -> dict[str, Any]:
    """Return what an arm's trials are, without network, seed and probes, and with numbers of images where known."""
    plain = side.trial.model_dump(mode="json", exclude={"network", "seed", "seeds", "probes", "code"})
    counts = side.designed.counts
    plain["data"] |= {"train": counts.train, "validation": counts.validation, "test": counts.test}
    return plain


def _networks(a: Side, b: Side) -> Iterator[str]:
    """Yield how two networks of one family differ; of two families, their names."""
    families = [_family(side) for side in (a, b)]
    if families[0] != families[1]:
        yield f"Their networks are {families[0]} and {families[1]}."
        return
    plain = [_by_place(side.trial.network.model_dump(mode="json")) for side in (a, b)]
    found = [f"{one.key} ({' and '.join(one.shown)})" for one in _spelled_out(plain[0], plain[1])]
    yield f"Their networks, both {families[0]}, differ in {join(found, SHOWN)}."


def _family(side: Side) -> str:
    given = side.study.spec.arms[side.arm.base].network
    if isinstance(given, str):
        return given
    return str(given.get("family") or given.get("module") or "written out")


def _by_place(value: object) -> Any:
    """Return plain data with lists of mappings, such as the stages of a network, as mappings by place, from 1."""
    if isinstance(value, Mapping):
        return {key: _by_place(one) for key, one in value.items()}
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        return {str(place): _by_place(one) for place, one in enumerate(value, start=1)}
    return value


def _places(a: Side, b: Side, key: str) -> tuple[str, str] | None:
    """Return where trials of either arm ran by one fact, where that is known and not the same."""
    one, two = a.environments(key), b.environments(key)
    return None if one == two or not one or not two else (join(one), join(two))
