"""A network's blocks taken apart: before, branch, join and after, and other ways through them while a probe looks.

Our own networks say themselves what their blocks are made of, and so does any module with the attributes `before`,
`branch`, `join` (None: plain) and `after`. Blocks of other modules are named, as wholes or with their `Parts`.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from leadline.errors import LeadlineError, unknown
from leadline.seeds import NOISE, seeded, stream

Loss = Callable[[Tensor, Tensor], Tensor]  # logits and labels to the mean over the images, a scalar
Progress = Callable[[int, int], None]  # steps done, steps in all


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits with class labels, the loss of probes that are given no other one.

    Raises:
        LeadlineError: labels are real numbers, which `F.cross_entropy` would take for probabilities of the classes.
    """
    if labels.is_floating_point():
        raise LeadlineError(
            f"targets are {str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}: this measures the"
            " cross-entropy of class labels, which are integers"
        )
    return F.cross_entropy(logits, labels)


def same(x: Tensor) -> Tensor:
    """Return what is given: the part that does nothing."""
    return x


@dataclass(frozen=True)
class Parts:
    """What a block is made of: it gives `after(join(before(x), branch(before(x))))`; plain, `after(branch(before(x)))`.

    Each is a function of tensors; a submodule will do. For torchvision's `BasicBlock` `b`, say,
    `Parts(lambda x: b.bn2(b.conv2(b.relu(b.bn1(b.conv1(x))))), lambda x, y: y + (b.downsample or same)(x),
    after=b.relu)`.

    Attributes:
        branch: from the block's input, and whatever else the block is called with, to what is joined to it.
        join: of the shortcut's input and the branch's output; None: the block is plain. With zeros for the branch's
            output it gives what the shortcut alone gives.
        before: what stands before branch and shortcut alike.
        after: what stands after the addition.
        gate: a submodule that `join` calls with the block's input for the factor that the shortcut is multiplied by;
            that factor is held constant along the shortcut.
        whole: whether the block is known only as a whole, so that its branch is what it adds to its input.
    """

    branch: Callable[..., Tensor]
    join: Callable[[Tensor, Tensor], Tensor] | None = None
    before: Callable[[Tensor], Tensor] = same
    after: Callable[[Tensor], Tensor] = same
    gate: nn.Module | None = None
    whole: bool = False

    def apply(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the block's output."""
        z = self.before(x)
        y = self.branch(z, *args, **kwargs)
        return self.after(y if self.join is None else self.join(z, y))

    def shortcut_alone(self, x: Tensor, branch_shape: Sequence[int]) -> Tensor:
        """Return the block's output with zeros, shaped (batch, *branch_shape), in place of its branch's.

        A plain block, and one that is known as a whole, gives its input.
        """
        if self.join is None or self.whole:
            return x
        z = self.before(x)
        return self.after(self.join(z, z.new_zeros((len(z), *branch_shape))))


Blocks = Sequence[str] | Mapping[str, Parts] | None
Found = dict[str, tuple[nn.Module, Parts]]


def find_blocks(model: nn.Module, blocks: Blocks = None, residual: bool = False) -> Found:
    """Return a network's blocks by name, each with its parts.

    Args:
        model: the network.
        blocks: names of submodules, or their parts by name; None: every submodule that has a block's attributes.
        residual: whether a named submodule without a block's attributes is taken as x + F(x), with F what it adds to
            its input; otherwise as a plain block.

    Raises:
        LeadlineError: there is no such block, or one holds another.
    """
    modules = dict(model.named_modules())
    if blocks is None:
        found = {name: (module, _parts(module, residual)) for name, module in modules.items() if _is_block(module)}
        if not found:
            raise LeadlineError(
                f"{type(model).__name__} has no blocks with before, branch, join and after; name its blocks,"
                " as in blocks=['layer1.0', 'layer1.1']"
            )
        return found
    if isinstance(blocks, str):
        raise LeadlineError(f"blocks is {blocks!r}; expected a list of submodules' names, or their parts by name")
    for name in blocks:
        if name not in modules:
            raise LeadlineError(f"{type(model).__name__}: {unknown('submodule', name, filter(None, modules))}")
        for other in blocks:
            if name != other and (not other or name.startswith(f"{other}.")):
                raise LeadlineError(f"blocks: {other or 'the model itself'} holds {name}; name one of the two")
    if not blocks:
        raise LeadlineError("blocks is empty; name at least one submodule")
    if isinstance(blocks, Mapping):
        return {name: (modules[name], parts) for name, parts in blocks.items()}
    return {name: (modules[name], _parts(modules[name], residual)) for name in blocks}


def _is_block(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in ("before", "branch", "join", "after"))


def _parts(module: nn.Module, residual: bool) -> Parts:
    given: Any = module
    if _is_block(module):
        gate = getattr(given.join, "gate", None)
        return Parts(given.branch, given.join, given.before, given.after, gate)
    forward: Callable[..., Tensor] = module.forward
    if not residual:
        return Parts(forward, whole=True)

    def added(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = forward(x, *args, **kwargs)
        return y - x if y.shape == x.shape else y

    return Parts(added, lambda x, y: x + y if x.shape == y.shape else y, whole=True)


@contextmanager
def preserve_state(model: nn.Module, training: bool = False, seed: int = 0) -> Iterator[nn.Module]:
    """Put a network into evaluation (or training) mode, and restore modes and buffers afterwards.

    Yields the original of a compiled model. What its modules draw from global generators is drawn from `seed`, and the
    generators are restored.
    """
    model = getattr(model, "_orig_mod", model)
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        with seeded(stream(seed, NOISE)), torch.inference_mode(False):
            model.train(training)
            yield model
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for module, name, buffer, values in buffers:
                setattr(module, name, buffer)
                buffer.copy_(values)


@contextmanager
def reroute_blocks(blocks: Found, route: Callable[..., Tensor]) -> Iterator[None]:
    """Replace each block by `route(name, parts, x, ...)` during one forward pass of the network.

    A block that is called again, as in a recurrent network, is `name#2` at its second call.
    """
    calls: Counter[str] = Counter()

    def instead(name: str, parts: Parts) -> Callable[..., Tensor]:
        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            calls[name] += 1
            place = name if calls[name] == 1 else f"{name}#{calls[name]}"
            return route(place, parts, x, *args, **kwargs)

        return forward

    before = [(module, module.__dict__.get("forward")) for module, _ in blocks.values()]
    try:
        for name, (module, parts) in blocks.items():
            module.__dict__["forward"] = instead(name, parts)
        yield
    finally:
        for module, forward in before:
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.__dict__["forward"] = forward


@contextmanager
def disable_recomputation(model: nn.Module) -> Iterator[None]:
    """Let modules that call PyTorch's `checkpoint` keep their activations, so that a graph can be walked many times."""
    real = torch.utils.checkpoint.checkpoint

    def direct(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        settings = ("use_reentrant", "context_fn", "determinism_check", "debug", "preserve_rng_state", "early_stop")
        return function(*args, **{key: value for key, value in kwargs.items() if key not in settings})

    classes = {kind for module in model.modules() for kind in type(module).__mro__}
    files = [sys.modules[name] for name in {kind.__module__ for kind in classes} if name in sys.modules]
    places = [(torch.utils.checkpoint, "checkpoint")]
    places += [(file, name) for file in files for name, value in vars(file).items() if value is real]
    try:
        for file, name in places:
            setattr(file, name, direct)
        yield
    finally:
        for file, name in places:
            setattr(file, name, real)


@dataclass(frozen=True)
class Call:
    """One call of a block in a forward pass: its shapes without the batch."""

    name: str
    parts: Parts
    shape_in: tuple[int, ...]
    shape_branch: tuple[int, ...]
    shape_out: tuple[int, ...]

    @property
    def keeps_shape(self) -> bool:
        """Whether the output is shaped as the input."""
        return self.shape_in == self.shape_out


def survey(model: nn.Module, blocks: Found, images: Tensor) -> list[Call]:
    """Return the calls of a network's blocks in their order, from one forward pass without gradients.

    Raises:
        LeadlineError: a block is never called, or gives no tensor.
    """
    calls: list[Call] = []

    def look(name: str, parts: Parts, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        z = parts.before(x)
        y = parts.branch(z, *args, **kwargs)
        if not isinstance(y, Tensor):
            raise LeadlineError(f"block {name} returns a {type(y).__name__}; expected a tensor")
        out = parts.after(y if parts.join is None else parts.join(z, y))
        calls.append(Call(name, parts, tuple(x.shape[1:]), tuple(y.shape[1:]), tuple(out.shape[1:])))
        return out

    with torch.no_grad(), reroute_blocks(blocks, look):
        model(images)
    unused = set(blocks) - {call.name for call in calls}
    if unused:
        raise LeadlineError(f"block {min(unused)} is not called in the forward pass; remove it from blocks")
    return calls


def chunks(model: nn.Module, images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a batch in chunks of at most `size` images, on the network's device and, if floating-point, in its
    precision.

    Raises:
        LeadlineError: there are no images, not as many labels as images, or the size is less than 1.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise LeadlineError(
            f"{len(images)} images and {len(labels)} labels; expected the same number of each, at least one"
        )
    if size < 1:
        raise LeadlineError(f"batch_size {size}: expected at least 1")
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), images)
    dtype = like.dtype if images.is_floating_point() else images.dtype
    if images.is_inference():
        images = images.clone()  # which may take part in gradients
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        yield images[chosen].to(like.device, dtype), labels[chosen].to(like.device)
