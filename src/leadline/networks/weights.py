"""Weights from a file into a network: Leadline's own, or those that torchvision publishes for its residual networks.

A file holds a state_dict, tensors by name: `.safetensors`, or `.pt`, `.pth`, `.pth.tar`, `.th`, `.ckpt` and `.bin` as
PyTorch and Lightning save them. The latter are read with `weights_only`, so that they can build nothing but tensors and
plain containers; a state_dict may lie inside others, under the keys in `CONTAINERS`. Where the names are not the
network's, what wrapping adds is taken off: `_orig_mod.` (torch.compile) anywhere, and the `PREFIXES` in any order, such
as `model.` (a trial's checkpoint, Lightning) or `module.` (DataParallel).
They are Leadline's, or torchvision's for ResNet and ResNeXt, with s from 1 and b from 0:

| torchvision              | Leadline                            |
|--------------------------|-------------------------------------|
| `conv1`                  | `stem.conv`                         |
| `bn1`                    | `stem.norm`                         |
| `layer{s}.{b}.conv{k}`   | `stages.{s-1}.{b}.branch.conv{k}`   |
| `layer{s}.{b}.bn{k}`     | `stages.{s-1}.{b}.branch.norm{k}`   |
| `layer{s}.{b}.downsample.0` | `stages.{s-1}.{b}.join.path.conv` |
| `layer{s}.{b}.downsample.1` | `stages.{s-1}.{b}.join.path.norm` |
| `fc`                     | `head.linear`                       |

What follows (`weight`, `bias`, `running_mean`, `running_var`, `num_batches_tracked`) is the same in both. Files from
before PyTorch 0.4.1 have no `num_batches_tracked`; it is optional, and only counts.
"""

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from leadline.errors import SpecError, absence
from leadline.networks.modules.blocks import Block
from leadline.networks.modules.layers import Noisy
from leadline.text import join, plural

SHOWN = 2
"""Mismatches of each kind that an error names before it counts the rest."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".pth.tar", ".th", ".ckpt", ".bin")
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which a file may hold its state_dict; the first that is there is taken."""
PREFIXES = ("module.", "model.", "net.", "network.")

BESIDE = ("optimizer.", "scaler.", "average.", "best.", "epoch.")
"""What stands beside the model in a trial's checkpoint."""

_CLASSIFIER = "head.linear."
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Filled:
    """What a network was filled with."""

    tensors: int
    names: str  # whose names they had: `the network` or `torchvision`


def load_weights(network: nn.Module, path: Path, classifier: bool = True) -> Filled:
    """Fill a network with a file's weights and statistics, all of them or, where they do not fit, none.

    Args:
        network: what to fill, in place; its parameters keep their type, device and memory layout. A module of another
            make takes files of its own names.
        path: a file with one of the `SUFFIXES`; see the module for what its names may be.
        classifier: False: leave the last linear layer as it is, whatever the file has for it.

    Raises:
        SpecError: the file is missing, damaged, holds anything but tensors, or does not fit; the first mismatches are
            named, a line for each kind. A torchvision file does not fit a network whose blocks compute otherwise than
            torchvision's.
    """
    return fill_network(network, read_weights(path), f"weights {path}", classifier)


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], source: str, classifier: bool = True) -> Filled:
    """Fill a network with weights and statistics, as `load_weights` does.

    Args:
        network: what to fill, in place.
        tensors: by name.
        source: what they come from, for messages.
        classifier: False: leave the last linear layer as it is.

    Raises:
        SpecError: they do not fit; the first mismatches are named.
    """
    targets = network.state_dict(keep_vars=True)
    tensors, naming = _recognise(targets, tensors, source)
    if not classifier:
        last = find_classifier(network)
        targets = {name: target for name, target in targets.items() if not name.startswith(last)}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(naming(last))}
    if problems := list(_mismatches(targets, tensors, naming)):
        raise SpecError(*(f"{source}: do not fit the network: {problem}" for problem in problems))
    if naming is torchvision_name and (difference := _unlike_torchvision(network)):
        raise SpecError(f"{source}: are torchvision's, but {difference}")
    with torch.no_grad():
        for name, target in targets.items():
            if naming(name) in tensors:
                target.copy_(tensors[naming(name)])
    return Filled(len(tensors), "torchvision" if naming is torchvision_name else "the network")


def start_from(network: nn.Module, path: Path) -> str:
    """Fill a network with a file's weights; a last layer for another number of classes stays as it is.

    Args:
        network: what to fill, in place.
        path: as for `load_weights`.

    Returns:
        A sentence that says so where the last layer stays as it is, or an empty text.

    Raises:
        SpecError: as `load_weights`, but for the last layer.
    """
    source = f"weights {path}"
    targets = network.state_dict(keep_vars=True)
    tensors, naming = _recognise(targets, read_weights(path), source)
    last = f"{find_classifier(network)}weight"
    ours, theirs = targets.get(last), tensors.get(naming(last))
    if ours is None or (theirs is not None and (len(theirs) == len(ours) or theirs.ndim != ours.ndim)):
        fill_network(network, tensors, source)
        return ""
    fill_network(network, tensors, source, classifier=False)
    has = "has none" if theirs is None else f"has one for {plural(len(theirs), 'class', 'classes')}"
    return (
        f"{source}: the last layer, {last.removesuffix('.weight')}, is drawn at random: the file {has}, and the network"
        f" needs {len(ours)}"
    )


def find_classifier(network: nn.Module) -> str:
    """Return what the names of the last linear layer's parameters begin with; a network may have none."""
    linear = [f"{name}." for name, module in network.named_modules() if name and isinstance(module, nn.Linear)]
    return _CLASSIFIER if _CLASSIFIER in linear or not linear else linear[-1]


def _recognise(
    targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str
) -> tuple[Mapping[str, Tensor], Callable[[str], str]]:
    """Return tensors without what wrapping has added to their names, and their names for the network's."""
    for unwrapped in _unwrap(tensors, targets):
        if any(name in targets for name in unwrapped):
            return unwrapped, str
        if any(re.match(r"(conv1|bn1|fc|layer\d+)\.", name) for name in unwrapped):
            return unwrapped, torchvision_name
    raise SpecError(
        f"{source}: {join(list(tensors), SHOWN)}: neither the network's names, such as"
        f" {next(iter(targets))}, nor those of torchvision's ResNet"
    )


def torchvision_name(name: str) -> str:
    """Return torchvision's name for one of ours; ours again where torchvision's networks have no such part."""
    layer, _, kind = name.rpartition(".")
    match layer.split("."):
        case ["stem", "conv"]:
            theirs = "conv1"
        case ["stem", "norm"]:
            theirs = "bn1"
        case ["head", "linear"]:
            theirs = "fc"
        case ["stages", stage, number, "branch", part] if re.fullmatch(r"(conv|norm)\d", part):
            theirs = f"layer{int(stage) + 1}.{number}.{part.replace('norm', 'bn')}"
        case ["stages", stage, number, "join", "path", ("conv" | "norm") as part]:
            theirs = f"layer{int(stage) + 1}.{number}.downsample.{0 if part == 'conv' else 1}"
        case _:
            return name
    return f"{theirs}.{kind}"


def hash_tensors(tensors: Mapping[str, Tensor], start: bytes = b"") -> str:
    """Return the hexadecimal SHA-256 of the names, types, shapes and bytes of tensors, after some other bytes.

    Example:
        >>> hash_tensors({"a": torch.zeros(2)}) == hash_tensors({"a": torch.zeros(1, 2)})
        False
    """
    digest = hashlib.sha256(start)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name.

    Raises:
        SpecError: the file is missing, damaged, or holds anything but tensors.
    """
    if path.is_dir():
        raise SpecError(f"weights {path}: {absence(path, 'file')}")
    if not path.name.endswith(SUFFIXES):
        raise SpecError(f"weights {path}: unsupported suffix {path.suffix!r}; expected {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise SpecError(f"weights {path}: there is no such file")
    try:
        with warnings.catch_warnings():
            # PyTorch says twice, as a warning and as an error, that it was given a TorchScript archive
            warnings.filterwarnings("ignore", "'torch.load' received a zip file", UserWarning)
            content: object = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError:
        raise SpecError(
            f"weights {path}: damaged, or contains objects other than tensors in plain containers, which are not"
            f" loaded; save the state_dict alone"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split(". ")[0].split()).rstrip(".") or type(error).__name__
        raise SpecError(f"weights {path}: cannot be read: {reason}") from None
    return _state_dict(path, content)


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    outer: list[object] = []
    while isinstance(content, Mapping):
        if any(content is one for one in outer):
            raise SpecError(f"weights {path}: holds a mapping that contains itself; save the state_dict alone")
        outer.append(content)
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        what = "an empty one" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise SpecError(f"weights {path}: expected a state_dict, tensors by name, got {what}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise SpecError(f"weights {path}: {name!r} has type {type(value).__name__}; expected tensors by name")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise SpecError(
                f"weights {path}: {name!r} is sparse, quantised or empty of values; expected a dense tensor"
            )
    return dict(content)


def _unwrap(tensors: Mapping[str, Tensor], targets: Iterable[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yield tensors under their own names, and then under names without what one wrapping after another has added."""
    compiled = re.compile(r"(^|\.)_orig_mod\.")
    if not any(compiled.search(name) for name in targets):
        tensors = {compiled.sub(r"\1", name): tensor for name, tensor in tensors.items()}
    yield tensors
    while prefix := next((one for one in PREFIXES if any(name.startswith(one) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if not name.startswith(BESIDE)}
        yield tensors


def _mismatches(
    targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], naming: Callable[[str], str]
) -> Iterator[str]:
    """Yield what does not fit, one text for each kind of mismatch."""
    missing, wrong, apart, hint = [], [], [], ""
    owners: dict[int, str] = {}
    for name, target in targets.items():
        theirs, owner = naming(name), owners.setdefault(id(target), name)
        value, owned = tensors.get(theirs), tensors.get(naming(owner))
        if value is None:
            if owner == name and not name.endswith(_COUNTER):
                missing.append(theirs)
        elif value.shape != target.shape:
            wrong.append(f"{theirs} ({_size(value)} in the file, {_size(target)} in the network)")
            if name == f"{_CLASSIFIER}weight" and value.ndim == 2 and value.shape[1] == target.shape[1]:
                hint = (
                    f"; the file's classifier has {len(value)} classes, the network's {len(target)}: build it for"
                    f" {len(value)}, or leave the file's classifier out"
                )
        elif value.dtype.is_floating_point != target.dtype.is_floating_point:
            wrong.append(f"{theirs} ({value.dtype} in the file, {target.dtype} in the network)")
        elif owner != name and owned is not None and not torch.equal(value, owned):
            apart.append(f"{theirs} (the network shares it with {naming(owner)})")
    expected = {naming(name) for name in targets}
    unexpected = [name for name in tensors if name not in expected]
    if missing:
        yield f"missing {join(missing, SHOWN)}"
    if unexpected:
        yield f"unexpected {join(unexpected, SHOWN)}"
    if wrong:
        yield f"wrong shape or type {join(wrong, SHOWN)}{hint}"
    if apart:
        yield f"different values {join(apart, SHOWN)}"


def _unlike_torchvision(network: nn.Module) -> str | None:
    """Return how a block computes otherwise than torchvision's where names and shapes of parameters do not tell."""
    for name, block in network.named_modules():
        if not isinstance(block, Block):
            continue
        parts = {part: module for part, module in block.branch.named_children() if not isinstance(module, Noisy)}
        convs = [module for module in parts.values() if isinstance(module, nn.Conv2d)]
        order = [f"{part}{number}" for number in range(1, len(convs) + 1) for part in ("conv", "norm", "act")][:-1]
        activations = [module for part, module in parts.items() if part.startswith("act")] + list(
            block.after.children()
        )
        if (
            list(parts) != order
            or not isinstance(block.before, nn.Identity)
            or [part for part, _ in block.after.named_children()] != ["act"]
        ):
            return f"{name} adds, normalises and activates in another order; build it with block.order original"
        for activation in activations:
            if type(activation) is not nn.ReLU:
                return f"{name} has {type(activation).__name__} where theirs have ReLU; build it with activation relu"
        if any(type(conv) is not nn.Conv2d for conv in convs):
            return f"{name} standardises its weights; build it with weight_standardisation false"
        if len(convs) == 3 and convs[0].stride != (1, 1):
            return f"{name} subsamples in its first 1x1, theirs in the 3x3; build it with block.stride_in 3x3"
    return None


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
