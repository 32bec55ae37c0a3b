"""What operations give on the meta device, each computed once: a deep network repeats a few."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@contextmanager
def remember_shapes() -> Iterator[None]:
    """Let operations on the meta device take the shape of their result from earlier calls with the same shapes.

    On the meta device, PyTorch takes elementwise operations and batch normalisation apart in Python: a call takes up to
    milliseconds, and the first one seconds, for imports. Here their results have the shapes of their input. Modes that
    are entered inside the `with` block, such as `count_operations`, see every operation.

    Example:
        >>> import torch
        >>> from leadline.networks.modules.shapes import remember_shapes
        >>> with remember_shapes():
        ...     torch.nn.Conv2d(3, 8, 3, device="meta")(torch.empty(2, 3, 9, 9, device="meta")).shape
        torch.Size([2, 8, 7, 7])
    """
    with _Remembering():
        yield


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Base class of modes that see every operation, and whose use does not import the compiler, which takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Remembering(Watching):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known: dict[Hashable, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in _IN_PLACE and args[0].is_meta:
            return args[0]
        if not (_is_pure(func) and isinstance(args[0], Tensor) and args[0].is_meta):
            return func(*args, **kwargs)
        try:
            key = func, _signature(args), _signature(tuple(kwargs.items()))
            hash(key)
        except TypeError:  # an argument that has no hash
            return func(*args, **kwargs)
        if key not in self.known:
            if func in _SHAPED:
                result = _SHAPED[func](*args)
            elif func.overloadpacket in _ELEMENTWISE and _are_alike(args):
                result = torch.empty_like(args[0])
            else:
                result = func(*args, **kwargs)
            self.known[key] = _copy(result)  # not the result itself, whose life others may watch
            return result
        return _copy(self.known[key])


@cache
def _is_pure(func: Any) -> bool:
    """Return whether an operation makes new tensors and changes none."""
    schema = func._schema
    return (
        bool(schema.arguments)
        and not schema.is_mutable
        and not any(argument.alias_info for argument in schema.arguments)
        and all(str(given.type) == "Tensor" for given in schema.returns)
    )


def _signature(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.is_meta
    return tuple([_signature(one) for one in value]) if isinstance(value, tuple | list) else value


def _copy(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(map(_copy, result))
    if result is None:
        return None
    return torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=result.device)


def _are_alike(args: Sequence[Any]) -> bool:
    """Return whether all tensors have the shape and type of the first, whose memory layout the result then has."""
    first, *others = [one for one in args if isinstance(one, Tensor)]
    return all(one.shape == first.shape and one.dtype == first.dtype for one in others)


def _normalise(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    channels = x.shape[1]
    return torch.empty_like(x), x.new_empty(channels), x.new_empty(channels)


def _normalise_backward(_gradient: Tensor, x: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor | None, ...]:
    channels, wanted = x.shape[1], rest[-1]
    made = (torch.empty_like(x), x.new_empty(channels), x.new_empty(channels))
    return tuple(one if want else None for one, want in zip(made, wanted, strict=True))


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def _mean(x: Tensor, dimensions: Sequence[int], keep: bool = False) -> Tensor:
    taken = {dimension % x.ndim for dimension in dimensions}
    kept = [1 if number in taken else size for number, size in enumerate(x.shape) if keep or number not in taken]
    return x.new_empty(kept)


def _pad(x: Tensor, padding: Sequence[int], _value: float = 0) -> Tensor:
    shape = list(x.shape)
    for number, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True), 1):
        shape[-number] += before + after
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x.new_empty(shape).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


_SHAPED: dict[Any, Callable[..., Any]] = {
    aten.native_batch_norm.default: _normalise,
    aten.native_batch_norm_backward.default: _normalise_backward,
    aten.mm.default: _multiply,
    aten.addmm.default: lambda _added, a, b: _multiply(a, b),
    aten.mean.dim: _mean,
    aten.constant_pad_nd.default: _pad,
}
_ELEMENTWISE = {
    *(aten.add, aten.sub, aten.mul, aten.div, aten.relu, aten.threshold_backward),
    *(aten.leaky_relu, aten.elu, aten.gelu, aten.silu, aten.tanh, aten.sigmoid, aten.softplus),
    *(aten.gelu_backward, aten.silu_backward, aten.tanh_backward, aten.sigmoid_backward, aten.softplus_backward),
}
_IN_PLACE = {aten.add_, aten.mul_, aten.zero_, aten.fill_, aten.uniform_, aten.normal_, aten.bernoulli_}
