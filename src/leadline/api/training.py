"""Training of a single network with one recipe and one seed."""

import operator
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leadline.errors import LeadlineError, LeadlineWarning, SpecError
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from leadline.parts.metrics.record import Record


def train(
    network: object,
    data: object,
    recipe: object = None,
    seed: int = 0,
    *,
    device: str = "cpu",
    data_dir: str | Path | None = None,
) -> "Iterator[Record]":
    """Train one network and yield its measurements, with the same training loop that studies use.

    Args:
        network: a specification, the name of a family, a reference to code, or a module, which is trained in place.
        data: the name of a data set, its specification, a function that returns `Arrays`, or a loaded data set.
        recipe: a `TrainingSpec` or a mapping of its keys; None: the defaults.
        seed: random seed of the initial weights (of a specification), the image order, augmentation, noise, and of
            what is resampled of data given by name or specification.
        device: `cpu`, `cuda`, `cuda:N`, `mps` or `auto`.
        data_dir: the folder of the data sets; None: the default one.

    Yields:
        Records of the loss during an epoch, of training and validation after it, and of all splits at the end.

    Raises:
        LeadlineError: the data, the network or the recipe is invalid.
        Diverged: the training loss was not finite.

    Example:
        >>> import leadline as ll
        >>> network = ll.networks.comparative_resnet(blocks=1)
        >>> records = list(ll.train(network, {"name": "digits", "train": 64, "test": 50}, {"epochs": 1}, seed=0))
        >>> records[-1].split, records[0].split
        ('final-test', 'train')
    """
    from torch import nn

    from leadline.data.batches import Data, load
    from leadline.networks.modules import build, check_last_batch
    from leadline.specs import DataSpec, TrainingSpec, TrialSpec, parse
    from leadline.study.expand import resolve_network
    from leadline.training import choose_device, prepare
    from leadline.training import train as run_loop
    from leadline.training.initial_weights import set_initial_weights

    spec = recipe if isinstance(recipe, TrainingSpec) else parse(TrainingSpec, recipe or {})
    place = choose_device(device)
    try:
        seed = parse(TrialSpec, {"network": _ANY, "seed": operator.index(seed)}).seed
    except TypeError:
        raise SpecError(f"seed {seed!r}: expected an integer") from None
    if isinstance(data, Data):
        loaded = data
    else:
        asked = data if isinstance(data, DataSpec) else parse(TrialSpec, {"network": _ANY, "data": data}).data
        loaded = load(asked, None if data_dir is None else Path(data_dir), seed=seed)
    loaded = loaded.to(place)
    if not isinstance(network, nn.Module):
        if not isinstance(network, Spec):
            network = resolve_network(network if isinstance(network, str | Mapping) else _refer(network))
        given = network, loaded.shape, loaded.classes
        check_last_batch(*given, loaded.train_size, spec, "network")  # type: ignore[arg-type]
        network = build(*given, seed)  # type: ignore[arg-type]
    if note := set_initial_weights(network, spec, loaded, None if data_dir is None else Path(data_dir)):
        warnings.warn(note, LeadlineWarning, stacklevel=2)
    yield from run_loop(prepare(network, spec, place), loaded, spec, seed)


_ANY = {"module": "torch.nn:Identity"}  # a placeholder, because data are parsed as part of a trial


def _refer(network: object) -> Mapping[str, Any]:
    from leadline.parts.reference import refer

    if not callable(network):
        raise LeadlineError(f"network {network!r}: expected a specification, a family's name, a function or a module")
    return refer(network)
