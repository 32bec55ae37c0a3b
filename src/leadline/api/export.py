"""Use a trained network outside of its study: save and load it, export it to other formats, classify images.

A saved folder contains `model.safetensors`, whose metadata describe how to build the network for the weights, and
`model.json`, the same description for readers and for other programs:

    format            2
    leadline          version that wrote it
    network           the NetworkSpec, or the ModuleSpec of a custom network
    trial             the TrialSpec that it was trained by, or null
    input_shape       channels, height, width
    classes           number of logits
    class_names       names of the classes in the order of the logits, or null
    mean, scale       the input is (image - mean) / scale for bytes from 0 to 255; mean is [channel][row][column], with
                      one row and column if it is the same for all pixels; scale is [channel]
    shorter_side      shorter side to which an image is resized before its centre crop; null: an image is resized to
                      the input without keeping its aspect ratio
    background        red, green and blue from 0 to 255, put behind the transparent pixels of an image
    averaged          true where the weights are the average that training.averaging kept; missing otherwise
    channels_last     memory layout of the weights, which affects the last bits of logits
    sha256            of the names, types, shapes and bytes of the tensors, which `load` verifies

Format 1 has no sha256, class_names, shorter_side and background; `load` accepts it with a warning.
"""

import contextlib
import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from leadline.data import batches
from leadline.data.formats.images import WHITE, Colour, centre, decode, silence_pillow
from leadline.data.network_input import INPUT, NetworkInput, preparation, to_tuples
from leadline.errors import DataError, LeadlineError, LeadlineWarning, SpecError, absence, not_installed
from leadline.networks.modules import build, distinct_tensors, skeleton
from leadline.networks.weights import fill_network, hash_tensors, read_weights
from leadline.parts.reference import references
from leadline.parts.trust import trust as trust_names
from leadline.running.checkpoints import read_network
from leadline.specs import AnyNetwork, ModuleSpec, NetworkSpec, TrialSpec, canonical_json, parse
from leadline.store import Store, TrialRecord, verify_spec
from leadline.text import join
from leadline.training.averaging import norms_to_recompute, recompute_statistics
from leadline.training.numerics import numerics

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
KEY = "leadline"
"""Key of the network's description in the safetensors metadata."""

BATCH = 64
"""Batch size of predictions."""

LARGEST_ONNX = 2**31
"""Maximum bytes of an ONNX file, which is a single protocol buffer."""

InputShape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network with everything needed to use it; its input is (image - mean) / scale."""

    model: nn.Module  # in evaluation mode
    network: NetworkSpec | ModuleSpec
    input_shape: InputShape  # channels, height, width
    classes: int
    mean: Float[Tensor, "1 c mh mw"]  # of 0 to 255; one value per channel, or per channel and pixel
    scale: Float[Tensor, "1 c 1 1"]
    trial: TrialSpec | None = None  # the trial in which it was trained, if known
    class_names: tuple[str, ...] | None = None  # in the order of the logits, if known
    shorter_side: int | None = None  # of image files before the centre crop; None: they are resized to the input
    background: Colour = WHITE  # behind the transparent pixels of image files
    averaged: bool = False  # whether the weights are the average that training.averaging kept

    @classmethod
    def of_input(
        cls,
        model: nn.Module,
        network: NetworkSpec | ModuleSpec,
        given: NetworkInput,
        trial: TrialSpec | None,
        averaged: bool = False,
    ) -> "Loaded":
        """Return a network, put into evaluation mode, with what is known about its input and classes."""
        return Loaded(
            model.eval(),
            network,
            given.input_shape,
            given.classes,
            torch.tensor(given.mean)[None],
            torch.tensor(given.scale).view(1, -1, 1, 1),
            trial,
            given.class_names,
            given.shorter_side,
            given.background,
            averaged,
        )

    @property
    def preparation(self) -> str:
        """How `predict` prepares an image file."""
        size = "x".join(map(str, self.input_shape[1:]))
        if self.shorter_side is None:
            return f"resized to {size} pixels without keeping the aspect ratio"
        return f"resized to a shorter side of {self.shorter_side} pixels, centre crop of {size}"

    @torch.inference_mode()
    def logits(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits of images with bytes from 0 to 255, on the device of the model."""
        device = next(self.model.parameters()).device
        normalised = images.to(device).float().sub_(self.mean.to(device)).div_(self.scale.to(device))
        out: Tensor = self.model(normalised)
        return out


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image in descending order."""

    path: Path
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    names: tuple[str, ...]  # of these classes; their numbers if the network's classes have no names


class _Description(NetworkInput):
    format: Literal[1, 2] = 2
    leadline: str = Field(default_factory=lambda: metadata.version("leadline"))
    network: AnyNetwork
    trial: TrialSpec | None = None
    averaged: bool = False
    channels_last: bool = False
    sha256: str | None = None

    @model_validator(mode="after")
    def _check_checksum(self) -> "_Description":
        if self.format == 2 and self.sha256 is None:
            raise ValueError("format 2 needs sha256")
        return self


# --- a folder that rebuilds itself


def from_trial(store: Store, prefix: str, data_dir: Path | None = None, averaged: bool = False) -> Loaded:
    """Return the network of a finished trial together with the normalisation and the class names of its data.

    They are stored with the trial, so that its data are not needed. For trials that ended before Leadline stored them,
    they are taken from the data as they are now, with a `LeadlineWarning`.

    Args:
        store: the store that contains the trial.
        prefix: prefix of the trial's hash.
        data_dir: folder of the data sets, for trials without stored normalisation and for averages whose batch
            statistics are computed anew; None: the default folder.
        averaged: take the average of the weights, which `training.averaging` keeps, instead of the trained weights.
            Batch statistics are those with which it was evaluated: averaged as well, or, as with `swa`, computed from
            the training images.

    Raises:
        StoreError: there is no such trial, or more than one, it has not finished or has no average, or its checkpoint
            is missing, damaged or of another trial.
        DataError: the data set is needed and cannot be read, or has changed.
    """
    record = store.trial(prefix)
    tensors = read_network(store, record, averaged)
    trial = verify_spec(record.trial, record.spec)
    given = _read_input(store, record, trial, data_dir)
    model = build(trial.network, given.input_shape, given.classes, trial.random_seed)
    fill_network(model, tensors, f"trial {record.trial[:12]}")
    _lay_out(model, trial.training.channels_last)
    average = trial.training.averaging
    if averaged and average is not None and average.recomputes_statistics and norms_to_recompute(model, trial.training):
        if trial.has_other_data(data_dir):
            raise DataError(
                f"{trial.data.display_name}: the training images, from which the batch statistics of the average are"
                " computed, are no longer those that the network was trained on"
            )
        data = batches.load(trial.data, data_dir, seed=trial.random_seed)
        with numerics(data.device, trial.training.precision):
            recompute_statistics(model, data, trial.training)
    return Loaded.of_input(model, trial.network, given, trial, averaged)


def _read_input(store: Store, record: TrialRecord, trial: TrialSpec, data_dir: Path | None) -> NetworkInput:
    """Return what a trial stored about its input, or else what its data say now."""
    if (stored := store.measurement(record.trial, INPUT)) is not None:
        return NetworkInput.from_bytes(stored)
    given = NetworkInput.of_data(batches.load(trial.data, data_dir, seed=trial.random_seed))
    warnings.warn(
        f"trial {record.trial[:12]}: ended before Leadline stored the normalisation and class names of its data; they"
        f" are those of {trial.data.display_name} as it is now, which may have changed",
        LeadlineWarning,
        stacklevel=3,
    )
    return given


def save(loaded: Loaded, folder: str | Path) -> list[Path]:
    """Write `model.safetensors` and `model.json` into a folder, created if missing, and return both paths.

    Raises:
        SpecError: `loaded` is a plain module, which does not describe how to build it.
        LeadlineError: the folder cannot be written.
    """
    if not isinstance(loaded, Loaded):
        raise SpecError(
            f"expected a network from `load` or `from_trial`, got a {type(loaded).__name__}; use `leadline export` for"
            " the network of a study"
        )
    folder = Path(folder)
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format).cpu()
        for name, tensor in distinct_tensors(loaded.model).items()
    }
    description = _Description(
        network=loaded.network,
        trial=loaded.trial,
        input_shape=loaded.input_shape,
        classes=loaded.classes,
        class_names=loaded.class_names,
        mean=to_tuples(loaded.mean[0].tolist()),
        scale=to_tuples(loaded.scale.flatten().tolist()),
        shorter_side=loaded.shorter_side,
        background=loaded.background,
        averaged=loaded.averaged,
        channels_last=any(
            tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
            for tensor in loaded.model.parameters()
        ),
        sha256=hash_tensors(tensors),
    ).model_dump(mode="json", exclude=None if loaded.averaged else {"averaged"})
    weights, readable = folder / WEIGHTS, folder / DESCRIPTION
    with _write_atomically(weights) as partial:
        save_file(tensors, partial, {KEY: canonical_json(description)})
    with _write_atomically(readable) as partial:
        partial.write_text(json.dumps(description, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return [weights, readable]


def load(path: str | Path, trust: bool = False) -> Loaded:
    """Load a network written by `save`; its logits are bit-identical to those of the saved network.

    Args:
        path: the folder, or the `.safetensors` file in it, which is the only file that is read.
        trust: whether to import and call the function that builds a custom network; only for files that you would
            trust like a program.

    Raises:
        SpecError: the file is missing, damaged or was not written by `save`, or needs `trust`.

    Warns:
        LeadlineWarning: it was saved by an earlier version, without a checksum.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise SpecError(f"network {file}: no such file; check the path")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise SpecError(f"network {file}: is not a valid safetensors file: {_one_line(error)}") from None
    if KEY not in metadata:
        raise SpecError(
            f"network {file}: was not saved by Leadline as a network; load plain weights with leadline.load_weights"
        )
    try:
        description = parse(_Description, json.loads(metadata[KEY]))
    except (SpecError, ValueError) as error:
        raise SpecError(f"network {file}: its metadata are invalid: {_one_line(error)}") from None
    named = references(description.network.model_dump(mode="json"))
    if trust:
        trust_names(named)
    elif named:
        raise SpecError(
            f"network {file}: needs {join(sorted(named))} to be called to build it; if you trust the file, load it with"
            " trust=True"
        )
    network, shape, classes = description.network, description.input_shape, description.classes
    tensors = read_weights(file)
    if isinstance(network, NetworkSpec):  # a description may name any size: it must fit the file before memory is taken
        try:
            fill_network(skeleton(network, shape, classes), tensors, f"weights {file}")
        except (RuntimeError, OverflowError) as error:  # sizes that no tensor can have
            raise SpecError(f"network {file}: its description is of no network: {_one_line(error)}") from None
    model = build(network, shape, classes)
    if description.sha256 is None:
        warnings.warn(
            f"network {file}: was saved without a checksum by an earlier version of Leadline, so that damage to its"
            " weights would not be noticed; export it again",
            LeadlineWarning,
            stacklevel=2,
        )
        description = description.model_copy(
            update=preparation(None if description.trial is None else description.trial.data)
        )
    elif hash_tensors(tensors) != description.sha256:
        raise SpecError(f"network {file}: its weights are not those that were saved; copy or export it again")
    fill_network(model, tensors, f"weights {file}")
    _lay_out(model, description.channels_last)
    return Loaded.of_input(model, description.network, description, description.trial, description.averaged)


# --- other formats


def to_onnx(model: nn.Module, input_shape: InputShape, path: Path) -> Path:
    """Write a network in evaluation mode as an ONNX file with the input `images`, normalised, and the output `logits`.

    The first axis of both, `batch`, is dynamic.

    Args:
        model: the network, which is not modified.
        input_shape: channels, height, width of an image.
        path: the file to write.

    Raises:
        LeadlineError: a required package is not installed, the network is too large for an ONNX file or cannot be
            traced, or the file cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        try:
            import_module(package)
        except ImportError:
            raise LeadlineError(not_installed("ONNX export", package, "onnx")) from None
    size = sum(tensor.numel() * tensor.element_size() for tensor in distinct_tensors(model).values())
    if size >= LARGEST_ONNX:
        raise LeadlineError(
            f"{path}: {size:,} bytes of weights, but an ONNX file can hold at most 2 GiB; use torch.export instead"
        )
    with _write_atomically(path) as partial, _silence_tracing(path):
        torch.onnx.export(
            _export_program(model, input_shape),
            f=partial,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),  # for its name in the file, which tracing replaces by one of its own
        )
    return path


def to_torch_export(model: nn.Module, input_shape: InputShape, path: Path) -> Path:
    """Write a network in evaluation mode as a `torch.export` program, for `torch.export.load(path).module()`.

    Args:
        model: the network, which is not modified.
        input_shape: channels, height, width of an image; the input is a batch of any number of normalised images.
        path: the file to write, ending in `.pt2`.

    Raises:
        LeadlineError: the path has another suffix, the network cannot be traced, or the file cannot be written.
    """
    if path.suffix != ".pt2":
        raise LeadlineError(f"{path}: the name ends in {path.suffix!r}; torch.export files must end in .pt2")
    with _write_atomically(path) as partial, _silence_tracing(path):
        torch.export.save(_export_program(model, input_shape), partial)
    return path


def _export_program(model: nn.Module, input_shape: InputShape) -> torch.export.ExportedProgram:
    """Trace a copy of a network on the CPU, in evaluation mode, with a dynamic batch size."""
    still = copy.deepcopy(model).cpu().eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    two = torch.zeros(2, *input_shape)  # with one image, tracing would treat the batch size as a constant
    with torch.no_grad():
        return torch.export.export(still, (two,), dynamic_shapes=({0: torch.export.Dim("batch")},))


@contextlib.contextmanager
def _silence_tracing(path: Path) -> Iterator[None]:
    """Convert errors of tracing into one line, and silence warnings that are irrelevant to users."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # hides a warning per torchvision operator if torchvision is not installed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    except OSError:
        raise
    except Exception as error:
        raise LeadlineError(f"{path}: the network cannot be traced: {_one_line(error)}") from error
    finally:
        registration.setLevel(level)


# --- predictions


def predict(
    loaded: Loaded, images: Sequence[Path], top: int = 5, skip: Callable[[DataError], None] | None = None
) -> list[Prediction]:
    """Classify image files of any size, prepared as in evaluation.

    For a network trained on encoded images, an image is resized to a shorter side of `loaded.shorter_side` pixels, and
    its centre crop is used. For other networks, it is resized to the input of the network without keeping the aspect
    ratio; an image of that size is used as it is. Both are bilinear with antialiasing.

    Args:
        loaded: the network.
        images: image files; their EXIF orientation is applied, `loaded.background` is put behind transparent pixels,
            and they are converted to grey for a network with one channel.
        top: maximum number of classes to return per image.
        skip: called with the error of each image that cannot be read, which is then left out; None: it is raised.

    Returns:
        One prediction per image, in order; probabilities are the softmax over all classes.

    Raises:
        SpecError: the input of the network has neither one nor three channels, or `top` is below 1.
        DataError: an image is missing, damaged, or has more than 16 bits per channel, and `skip` is None.
    """
    if top < 1:
        raise SpecError(f"top {top}: expected 1 or more classes per image")
    predictions = []
    for first in range(0, len(images), BATCH):
        read: dict[int, Tensor] = {}
        for number, path in enumerate(images[first : first + BATCH], first):
            try:
                read[number] = read_image(Path(path), loaded.input_shape, loaded.shorter_side, loaded.background)
            except DataError as error:
                if skip is None:
                    raise
                skip(error)
        if not read:
            continue
        logits = loaded.logits(torch.stack(list(read.values())))
        ranked = torch.softmax(logits.double(), 1).topk(min(top, loaded.classes))
        for number, probabilities, classes in zip(read, ranked.values.tolist(), ranked.indices.tolist(), strict=True):
            names = tuple(str(one) if loaded.class_names is None else loaded.class_names[one] for one in classes)
            predictions.append(Prediction(Path(images[number]), tuple(classes), tuple(probabilities), names))
    return predictions


def read_image(
    path: Path, input_shape: InputShape, shorter_side: int | None = None, background: Colour = WHITE
) -> UInt8[Tensor, "c h w"]:
    """Read an image file as bytes in the input shape of a network; arguments and errors as in `predict`.

    If a shorter side is given, return the centre crop after resizing to it with the original aspect ratio.
    """
    silence_pillow()
    from PIL.Image import Resampling

    channels, height, width = input_shape
    if channels not in (1, 3):
        raise SpecError(
            f"a network of {channels} channels: image files can only be read with 1 channel (grey) or 3"
            f" (red, green, blue)"
        )
    if not path.is_file():
        raise DataError(f"image {path}: {absence(path, 'file')}; check the path")
    try:
        image = decode(path.read_bytes(), channels == 1, background)
    except OSError as error:
        raise DataError(f"image {path}: cannot be read: {_one_line(error)}") from None
    except ValueError as error:
        raise DataError(f"image {path}: {error}; replace it or leave it out") from None
    if shorter_side is not None:
        image = centre(image, height, shorter_side)
    else:
        image = image.resize((width, height), Resampling.BILINEAR)
    return torch.from_numpy(np.array(image, dtype=np.uint8)).view(height, width, channels).permute(2, 0, 1)


# --- small parts


def _lay_out(model: nn.Module, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)  # type: ignore[call-overload]


@contextlib.contextmanager
def _write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` after the body, or removed if the body fails."""
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise LeadlineError(f"{path}: cannot be written: {_one_line(error)}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split(". ")[0].split()).rstrip(".") or type(error).__name__
