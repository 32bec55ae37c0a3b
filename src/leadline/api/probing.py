"""Run probes on the trained or untrained networks of stored trials, with test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leadline.api.export import from_trial
from leadline.data import batches
from leadline.data.files import default_data_dir
from leadline.errors import DataError, LeadlineError, SpecError, StoreError
from leadline.parts.code import identify_all
from leadline.probes.blocks import Progress
from leadline.probes.running import has_batch_normalisation
from leadline.probes.snapshots import SnapshotProbe
from leadline.running.trial import init_network
from leadline.specs import TrialSpec
from leadline.store import Store, verify_spec
from leadline.training.freezing import freeze

if TYPE_CHECKING:
    import pandas as pd

SHOWN_HASH = 10  # characters of a hash in the name of a trial


def probe_trial(
    store: Store,
    prefix: str,
    probe: SnapshotProbe,
    images: int = 128,
    data_dir: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    at_initialisation: bool = False,
) -> "pd.DataFrame":
    """Run a probe on the network of a stored trial, with the first of its test images.

    Args:
        store: the store that contains the trial.
        prefix: the trial's hash, or a prefix of it.
        probe: from `leadline.probes.snapshots.find_probe`.
        images: maximum number of test images given to the probe.
        data_dir: folder of the data sets.
        seed: random seed of the probe.
        progress: called with (done, total).
        at_initialisation: measure the network before its first step, and before pre-training if there is any: as drawn
            from the trial's seed, read from the file that `training.weights` names, and computed from the images with
            `training.whitening`, whatever the state of the trial; batch normalisation of a network that is not from a
            file uses batch statistics if the probe supports that.

    Returns:
        A frame with the columns `arm` and `base` (names of the trial in a study, or else the beginning of its hash),
        `seed`, `epoch` (after which the network is measured: the best where early stopping chose it; 0: before the
        first step) and those of the probe.

    Raises:
        StoreError: there is no such trial; its trained network is requested and it has not finished; or its network
            before the first step, and its custom code, file of weights or, with `training.whitening`, data are not what
            it was registered with.
        LeadlineError: the probe cannot measure this network.
    """
    record = store.trial(prefix)
    if at_initialisation:
        spec = verify_spec(record.trial, record.spec)
        _check_network_code(spec, data_dir)
        if spec.training.whitening and spec.has_other_data(data_dir):
            raise StoreError(
                "the data are not those that the trial was registered with, and its first convolution before the first"
                " step is computed from them; restore that version, or leave --at-initialisation out"
            )
        data = batches.load(spec.data, data_dir, seed=spec.random_seed)
        model = init_network(spec, data, data_dir)
    else:
        loaded = from_trial(store, record.trial, data_dir)
        assert loaded.trial is not None
        spec, model = loaded.trial, loaded.model
        data = batches.load(spec.data, data_dir, seed=spec.random_seed)
    freeze(model, spec.training)
    x, y = _sample_images(data, images)
    untrained = at_initialisation and spec.training.weights is None
    own = untrained and probe.takes_batch_statistics and has_batch_normalisation(model)
    frame = probe.measure(model, x, y, seed, own, progress)
    arm, base = store.arm_of(record.trial) or (record.trial[:SHOWN_HASH],) * 2
    epoch = 0 if at_initialisation else store.best_epoch(record.trial) or record.checkpoint_epoch
    place: dict[str, Any] = {"arm": arm, "base": base, "seed": record.seed_name, "epoch": epoch}
    return frame.assign(**place)[[*place, *frame.columns]]


def probe_trials(
    store: Store,
    prefixes: Sequence[str],
    probe: SnapshotProbe,
    images: int = 128,
    data_dir: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    at_initialisation: bool = False,
) -> "pd.DataFrame":
    """Run a probe on several stored trials, and return the concatenated frames; see `probe_trial`.

    Trials with the same arm and seed, for example from different studies, are named by their hashes instead.

    Raises:
        SpecError: a trial is given twice.
        LeadlineError: a trial cannot be measured; the message names it.
    """
    import pandas as pd

    hashes = [store.trial(prefix).trial for prefix in prefixes]
    for number, trial in enumerate(hashes):
        if trial in hashes[:number]:
            raise SpecError(f"trial {trial[:SHOWN_HASH]} is given twice; name another trial to compare it with")
    frames = []
    for trial in hashes:
        try:
            frames.append(probe_trial(store, trial, probe, images, data_dir, seed, progress, at_initialisation))
        except LeadlineError as error:
            raise LeadlineError(f"trial {trial[:SHOWN_HASH]}: {error}") from None
    places = [(frame["arm"].iloc[0], frame["seed"].iloc[0]) if len(frame) else None for frame in frames]
    for number, trial in enumerate(hashes):
        if places.count(places[number]) > 1:
            frames[number] = frames[number].assign(arm=trial[:SHOWN_HASH], base=trial[:SHOWN_HASH])
    return pd.concat(frames, ignore_index=True)


def _check_network_code(spec: TrialSpec, data_dir: Path | None) -> None:
    """Check that the code and the weights that a trial's network is made of are those that identify it.

    Raises:
        StoreError: they are others now, or missing.
    """
    try:
        now = identify_all(spec.network.model_dump(mode="json")) | spec.training.identify(
            data_dir or default_data_dir()
        )
    except (SpecError, DataError) as error:
        raise StoreError(str(error)) from None
    for name, identity in now.items():
        if spec.code.get(name) != identity:
            raise StoreError(
                f"{name} is not the version that the trial was registered with, so its network before the first step"
                " cannot be had again; restore that version, or leave --at-initialisation out"
            )


def _sample_images(data: batches.Data, count: int) -> tuple[Float[Tensor, "batch c h w"], Int64[Tensor, " batch"]]:
    images, labels = data.sample("test", count)
    return images.to(memory_format=torch.contiguous_format), labels
