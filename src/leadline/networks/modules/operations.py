"""Counting the multiply-adds of everything that a forward pass calls, whichever module or function calls it."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import flop_registry, shape_wrapper

from leadline.networks.modules.shapes import Watching

aten = torch.ops.aten


def _flops_of_vectors(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
    """Return twice the multiply-adds of a matrix, or a vector, times a vector: one for each of its values."""
    matrix: tuple[int, ...] = shapes[0]
    return 2 * math.prod(matrix)


def _flops_of_added_vectors(_added: Any, *shapes: Any, out_shape: Any = None, **_: Any) -> int:
    return _flops_of_vectors(*shapes)


def _flops_of_added_batch(_added: Any, a: Any, b: Any, *_rest: Any, out_shape: Any = None, **_: Any) -> int:
    return int(2 * math.prod(a) * b[-1])


_BESIDE_PYTORCHS = {
    aten.mv: _flops_of_vectors,
    aten.dot: _flops_of_vectors,
    aten.vdot: _flops_of_vectors,
    aten.addmv: _flops_of_added_vectors,
    aten.addbmm: _flops_of_added_batch,
}
"""Products that PyTorch's counter leaves out."""

_COUNTED: dict[Any, Any] = {
    **flop_registry,
    **{one: shape_wrapper(count) for one, count in _BESIDE_PYTORCHS.items()},  # type: ignore[no-untyped-call]
}

_PRODUCTS = re.compile(
    r"(?:add|badd|hsp|b)*mm|(?:add)?mv|v?dot|addr|conv(?:olution|\dd)?|depthwise\dd|matmul|linear|trilinear|rnn|lstm|gru"
    r"|attention|transformer|fft|linalg|solve|cholesky|geqrf|ormqr|inverse|cdist|pdist|euclidean"
)
"""Words in the names of operations that multiply and add, beside those that are elementwise or move values."""


class Operations:
    """What a forward pass has called so far.

    Attributes:
        flops: floating-point operations, by PyTorch's formulas.
        uncounted: operations that are in no count, as `namespace::name`, and the number of their calls: those of
            PyTorch that multiply and add, such as a Fourier transform, and any operation that is not PyTorch's.
    """

    def __init__(self) -> None:
        self.flops = 0
        self.uncounted: Counter[str] = Counter()

    @property
    def multiply_adds(self) -> int:
        """Half of the floating-point operations."""
        return self.flops // 2


@contextmanager
def count_operations() -> Iterator[Operations]:
    """Count the multiply-adds of everything that is called inside the `with` block.

    Convolutions and matrix products count, as `torch.utils.flop_counter.FlopCounterMode` counts them, wherever they
    are called: in layers, attention, recurrent layers, or a user's own `torch.matmul`, `einsum` or `F.linear`. Beside
    those, products with a vector (`mv`, `dot`) and `addbmm` count. Elementwise products, sums, normalisation,
    activation and pooling do not, by the convention of He et al. 2015, table 1.

    On a device that computes, put `unfused` around it: a fused kernel is in no count.

    Example:
        >>> import torch
        >>> from leadline.networks.modules import count_operations
        >>> with count_operations() as operations:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> operations.multiply_adds
        24
    """
    operations = Operations()
    with _Counting(operations):
        yield operations


@contextmanager
def unfused() -> Iterator[None]:
    """Let attention and recurrent layers on the CPU call their products one by one, as on the meta device.

    Example:
        >>> import torch
        >>> from leadline.networks.modules.operations import count_operations, unfused
        >>> cell, sequence = torch.nn.LSTM(8, 6), torch.ones(5, 1, 8)
        >>> with torch.no_grad(), unfused(), count_operations() as operations:
        ...     _ = cell(sequence)
        >>> operations.multiply_adds == 5 * 4 * 6 * (8 + 6)
        True
    """
    fast_path, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.mkldnn.enabled = mkldnn


class _Counting(Watching):  # type: ignore[no-untyped-call]
    """Counts operations as `FlopCounterMode` does, and notes those that multiply and add without being counted."""

    def __init__(self, operations: Operations) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = operations

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if func is not torch.ops.prim.device.default:
            with self:  # which sees what the operation is made of
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet in _COUNTED:
            self.operations.flops += _COUNTED[packet](*args, **kwargs, out_val=result)
            return result
        namespace, _, name = packet._qualified_op_name.partition("::")
        if namespace not in ("aten", "prim", "prims") or any(map(_PRODUCTS.fullmatch, name.split("_"))):
            self.operations.uncounted[f"{namespace}::{name}"] += 1
        return result
