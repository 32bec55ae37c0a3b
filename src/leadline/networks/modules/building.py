"""From any specification of a network to a module: our own networks, or somebody's function."""

import inspect

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.errors import SpecError
from leadline.networks.modules.inspection import NetworkInfo, inspect_module, inspect_skeleton
from leadline.networks.modules.network import InputShape, build_network, skeleton
from leadline.seeds import INIT, seeded, stream
from leadline.specs import ModuleSpec, NetworkSpec, TrainingSpec


def build(spec: NetworkSpec | ModuleSpec, input_shape: InputShape, classes: int, seed: int = 0) -> nn.Module:
    """Build a network and draw its parameters; PyTorch's global generators are left as they were.

    Args:
        spec: what to build.
        input_shape: channels, height, width of an image.
        classes: number of logits.
        seed: of the parameters' streams; a custom module is built with the global generators seeded from it. A custom
            function may give a `NetworkSpec` instead, which is built as any other.

    Raises:
        SpecError: the specification cannot be built, or cannot take images of this shape.
    """
    if isinstance(spec, ModuleSpec):
        with seeded(stream(seed, INIT)):
            given = _call(spec, input_shape, classes)
        if isinstance(given, nn.Module):
            return given
        spec = given
    return build_network(spec, input_shape, classes, seed)


def describe_network(spec: NetworkSpec | ModuleSpec, input_shape: InputShape, classes: int) -> NetworkSpec | ModuleSpec:
    """Return the specification that a custom function gives; what it was given where the function gives a module.

    Raises:
        SpecError: the function cannot be called, or gives something else.

    Example:
        >>> from leadline.networks.modules.building import describe_network
        >>> from leadline.specs import ModuleSpec
        >>> spec = ModuleSpec(module="leadline.networks:cifar_resnet", arguments={"depth": 56})
        >>> len(describe_network(spec, (3, 32, 32), classes=10).stages)
        3
    """
    if isinstance(spec, NetworkSpec):
        return spec
    with seeded(stream(0, INIT)):
        given = _call(spec, input_shape, classes)
    return given if isinstance(given, NetworkSpec) else spec


def check(spec: NetworkSpec | ModuleSpec, input_shape: InputShape, classes: int) -> None:
    """Check that a network can be built and returns one logit per class.

    Raises:
        SpecError: it cannot be built, or cannot take images of this shape, or gives something else.
    """
    if isinstance(spec, NetworkSpec):
        skeleton(spec, input_shape, classes)
    else:
        inspect_network(spec, input_shape, classes)


def check_last_batch(
    spec: NetworkSpec | ModuleSpec,
    input_shape: InputShape,
    classes: int,
    images: int,
    training: TrainingSpec,
    name: str,
) -> None:
    """Check that a network can train on the last batch of an epoch, or a part of a batch, which may be a single image.

    Batch normalisation needs two values per channel: it fails for one image whose maps have shrunk to 1x1.

    Args:
        spec: the network.
        input_shape: channels, height, width of an image.
        classes: number of logits.
        images: number of training images.
        training: the recipe, for the images of a batch, on all devices together, and its parts.
        name: what the message begins with, such as `arm plain`.

    Raises:
        SpecError: it cannot; the message names a batch size with which it can.
    """
    batch_size, last = training.batch_size, _last_batch(images, training.batch_size)
    smallest = min(size // training.parts(size) for size in (min(batch_size, images), last))
    if smallest > 1:
        return
    model = skeleton(spec, input_shape, classes) if isinstance(spec, NetworkSpec) else build(spec, input_shape, classes)
    norms = [module for module in model.eval().modules() if isinstance(module, _BatchNorm)]
    for norm in norms:  # alone: other modules would draw random numbers
        norm.train()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            model(torch.zeros(1, input_shape[0], *training.image_sizes(*input_shape[1:])[0], device=device))
        return
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            return
    if last > 1:
        raise SpecError(
            f"{name}: with training.accumulate {training.accumulate}, a part of a batch is one image, and batch"
            f" normalisation cannot train on one value per channel, as it has after the maps have shrunk to 1x1; lower"
            f" training.accumulate or use larger batches"
        )
    others = [*range(batch_size - 1, 1, -1), *range(batch_size + 1, 2 * batch_size + 2)]
    size = next((one for one in others if _last_batch(images, one) > 1), None)
    change = "use more training images" if size is None else f"set training.batch_size to {size}"
    fewer = f" or data.train to {images - 1:,}" if size is not None and batch_size > 1 and images > 2 else ""
    raise SpecError(
        f"{name}: the last batch of an epoch is one image of {images:,}, and batch normalisation cannot train on one"
        f" value per channel, as it has after the maps have shrunk to 1x1; {change}{fewer}"
    )


def _last_batch(images: int, batch_size: int) -> int:
    """Return the number of images in the last batch of an epoch."""
    return (images - 1) % batch_size + 1


def inspect_network(spec: NetworkSpec | ModuleSpec, input_shape: InputShape, classes: int) -> NetworkInfo:
    """Count a network's parameters, and the multiply-adds of its convolutions and matrix products for one image.

    As in He et al. 2015, table 1, normalisation, activation, pooling and additions count no multiply-adds; what
    `count_operations` says counts.

    Raises:
        SpecError: the specification cannot be built, or cannot take images of this shape.
    """
    if isinstance(spec, NetworkSpec):
        module: nn.Module = skeleton(spec, input_shape, classes)
        name, count = "the network", inspect_skeleton
    else:
        module = build(spec, input_shape, classes)
        name, count = spec.module, inspect_module
    shown = "x".join(map(str, input_shape))
    try:
        info = count(module, input_shape)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{name} cannot take an image of {shown}: {reason}") from None
    if info.output_shape != (classes,):
        raise SpecError(
            f"{name} gives {info.output_shape} for an image of {shown}; expected ({classes},), a logit per class"
        )
    return info


def _call(spec: ModuleSpec, input_shape: InputShape, classes: int) -> nn.Module | NetworkSpec:
    function = spec.resolve()
    offered = {
        "input_shape": input_shape,
        "in_channels": input_shape[0],
        "in_chans": input_shape[0],
        "classes": classes,
        "num_classes": classes,
    }
    try:
        takes = inspect.signature(function).parameters
        # a function with **kwargs says not what it knows, so it is given the one name that all model zoos use
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
        given = {key: value for key, value in offered.items() if key in takes or (anything and key == "num_classes")}
        made = function(**{**given, **spec.arguments})
    except Exception as error:
        raise SpecError(f"{spec.module}: calling it failed: {type(error).__name__}: {error}") from None
    if not isinstance(made, nn.Module | NetworkSpec):
        raise SpecError(f"{spec.module} returned a {type(made).__name__}; expected a torch.nn.Module or a NetworkSpec")
    return made
