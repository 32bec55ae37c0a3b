"""Whether the networks of a study can be built and accept its data, said before anything is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from leadline.data.files import default_data_dir, find_file
from leadline.errors import Problem, SpecError
from leadline.networks.modules import build, check, skeleton
from leadline.networks.modules.whitening import find_first_convolution
from leadline.networks.weights import start_from
from leadline.probes.selection import select
from leadline.specs import ModuleSpec, NetworkSpec
from leadline.study.expand import Arm, ExpandedStudy, seeds_of_nothing, source_of


def check_networks(study: ExpandedStudy, data_dir: Path | None = None) -> tuple[str, ...]:
    """Check that every arm's network can be built, accepts the images, and has what recipe and probes name.

    Args:
        study: the study, expanded.
        data_dir: where the data are; folders of images are asked how many classes they have.

    Returns:
        Sentences on weights that training starts from and that do not fit the last layer.

    Raises:
        SpecError: a line for each arm whose network does not, with the place where it is written; or initial weights
            have several seeds, and no arm draws any.
        DataError: a folder of images is missing or not laid out in classes.
    """
    notes: dict[str, None] = {}
    problems: dict[object, Problem] = {}  # each once, of the first arm that has it
    drawn = False  # whether there is a weight that is not read from a file
    for arm in study.asked:
        try:
            found = list(_check_arm(arm, data_dir))
            notes |= dict.fromkeys(f"Arm {arm.name}: {note}." for note in found)
            drawn = drawn or _draws(arm, found)
        except SpecError as error:
            for one in error.problems:
                path = source_of(study.spec, arm.base, arm.factors, one.path)
                problems.setdefault((path, one.text), Problem(f"arm {arm.name}: {one.text}", path))
    if not problems and not drawn:
        problems |= {one.path: one for one in seeds_of_nothing(study.spec, "init")}
    if problems:
        raise study.places.locate(SpecError(*problems.values()))
    return tuple(notes)


def draws_weights(arm: Arm, data_dir: Path | None = None) -> bool:
    """Return whether an arm draws any initial weight: the file that it starts from may have them all.

    Raises:
        SpecError: the network cannot be built, or the file does not fit it.
        DataError: the data or the file is missing.
    """
    try:
        return _draws(arm, list(_check_arm(arm, data_dir)))
    except SpecError as error:
        raise SpecError(*(Problem(f"arm {arm.name}: {one.text}", one.path) for one in error.problems)) from None


def _draws(arm: Arm, notes: Sequence[str]) -> bool:
    """Return whether an arm draws initial weights, by the notes on its file; custom code may draw what no file has."""
    return bool(notes) or arm.trial.training.weights is None or isinstance(arm.trial.network, ModuleSpec)


def _check_arm(arm: Arm, data_dir: Path | None) -> Iterator[str]:
    """Yield what should be said about an arm."""
    network, flow = arm.trial.network, arm.trial.probes.flow
    known = arm.trial.data.metadata(data_dir or default_data_dir())
    shape, classes = known.shape, known.classes
    try:
        arm.trial.data.check_images(known)
    except SpecError as error:
        raise SpecError(
            *(Problem(f"data.{one.text}", ("data", *(one.path or ("augment",)))) for one in error.problems)
        ) from None
    try:
        check(network, shape, classes)
    except SpecError as error:
        raise SpecError(*(Problem(one.text, ("network", *one.path)) for one in error.problems)) from None
    if flow is not None and isinstance(network, NetworkSpec):
        try:
            select(skeleton(network, shape, classes), flow.layers)
        except SpecError as error:
            raise SpecError(Problem(str(error)).under(("probes", "flow", "layers"))) from None
    training = arm.trial.training
    try:
        optimizer = training.optimizer.build([nn.Parameter(torch.zeros(2, 2))])
        training.check_decay(type(optimizer).__name__, optimizer.param_groups)
    except SpecError as error:
        raise SpecError(Problem(str(error), ("training", "optimizer"))) from None
    if training.weights is None and not (training.whitening or training.rates or training.resizing):
        return
    model = skeleton(network, shape, classes) if isinstance(network, NetworkSpec) else build(network, shape, classes)
    if training.weights is not None:
        file = find_file(training.weights, data_dir or default_data_dir(), "training.weights")
        try:
            if note := start_from(model, file):
                yield note
        except SpecError as error:
            raise SpecError(*(Problem(one.text, ("training", "weights")) for one in error.problems)) from None
    if training.whitening:
        try:
            find_first_convolution(model, shape)
        except SpecError as error:
            raise SpecError(Problem(f"training.{error}", ("training", "whitening"))) from None
    try:
        training.check_rates([name for name, _ in model.named_parameters()])
    except SpecError as error:
        raise SpecError(Problem(str(error), ("training", "rates"))) from None
    channels, *full = shape
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    for height, width in training.image_sizes(*full)[:-1]:
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, channels, height, width, device=device))
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            line = (
                f"training.resizing: the network cannot take images of {height}x{width} beside those of"
                f" {full[0]}x{full[1]}: {reason}"
            )
            raise SpecError(Problem(line, ("training", "resizing"))) from None
