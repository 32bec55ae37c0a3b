"""PyTorch's settings that decide bits, in force only while a trial computes."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch

from leadline.errors import LeadlineWarning, SpecError
from leadline.specs.training import Precision

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
REPEATABLE_WORKSPACES = (":4096:8", ":16:8")
"""Values with which cuBLAS gives the same bits on every call (cuBLAS documentation, section "Results reproducibility");
the first is set where there is none."""

_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

T = TypeVar("T")


@contextmanager
def numerics(device: torch.device, precision: Precision = "float32") -> Iterator[None]:
    """Compute repeatable bits in the body, with products of float32 in TensorFloat-32 only if the precision is `tf32`.

    cuDNN chooses deterministic algorithms, and does not choose by timing them. On CUDA, other operations do likewise
    where PyTorch has an algorithm, and warn where it has none. The device is the current one, and the caller's autocast
    is off. Afterwards, all settings are as they were.

    Args:
        device: where the body computes.
        precision: of training; anything that is measured is computed in float32.

    Example:
        >>> torch.set_float32_matmul_precision("medium")
        >>> with numerics(torch.device("cpu")):
        ...     torch.get_float32_matmul_precision()
        'highest'
        >>> torch.get_float32_matmul_precision()
        'medium'
        >>> torch.set_float32_matmul_precision("highest")
    """
    tf32 = precision == "tf32"
    cudnn = torch.backends.cudnn
    wanted: list[tuple[Any, str, Any]] = [
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
        (cudnn, "allow_tf32", tf32),
        *((owner, "fp32_precision", "tf32" if tf32 and on_cuda else "ieee") for owner, on_cuda in _products()),
    ]
    before = [(owner, name, value) for owner, name, _ in wanted if (value := _read(owner, name)) is not None]
    products = _read_matmul_precision()
    try:
        # before the settings of each product, which it changes as well
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        for owner, name, value in wanted:
            setattr(owner, name, value)
        with _on_cuda(device), _without_autocast(device):
            yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for owner, name, value in before:
            setattr(owner, name, value)


def compute_in(settings: Callable[[], AbstractContextManager[None]], results: Iterator[T]) -> Iterator[T]:
    """Yield what an iterator yields, with settings in force while it computes and not between."""
    try:
        while True:
            with settings():
                try:
                    result = next(results)
                except StopIteration:
                    return
            yield result
    finally:
        if hasattr(results, "close"):
            results.close()


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context of a forward pass: half precision where operations allow it, if the precision asks for it.

    It is for the body of `numerics`. Weights are cast at each use, because PyTorch's cache of casts is one for all
    threads, and cleared whenever one ends a forward pass. So the gradients of a weight's uses are added in float32.
    """
    half = _HALVES.get(precision)
    return nullcontext() if half is None else torch.autocast(device.type, half, cache_enabled=False)


def multiplies_bfloat16() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 (AMX), as far as PyTorch tells, from 2.11 on."""
    tell: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return bool(tell().get("amx_bf16"))


def check_precision(device: torch.device, precision: Precision) -> None:
    """Check that a device computes in a precision.

    Raises:
        SpecError: it does not.
    """
    if precision == "tf32":
        if device.type != "cuda":
            raise SpecError(f"training.precision: tf32 needs a CUDA device, and this is {device}; use float32")
        if (found := torch.cuda.get_device_capability(device)) < (8, 0):
            raise SpecError(
                f"training.precision: tf32 needs a card of compute capability 8.0, and {device} has"
                f" {found[0]}.{found[1]}; use float32"
            )
    if precision in _HALVES and device.type == "mps":
        raise SpecError(f"training.precision: {precision} is not supported on mps; use float32, or --device cpu")


def fix_workspace() -> None:
    """See to it that matrix products on CUDA give the same bits on every call, in this process and those it starts.

    cuBLAS reads the environment variable when it starts, so it stays set. Where it is too late, or the user has set a
    value that is not repeatable, a warning says so.
    """
    found = os.environ.get(WORKSPACE)
    if found in REPEATABLE_WORKSPACES:
        return
    if found is None and not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        os.environ[WORKSPACE] = REPEATABLE_WORKSPACES[0]
        return
    what = f"{WORKSPACE} is {found}" if found else f"CUDA was in use before {WORKSPACE} was set"
    warnings.warn(
        f"{what}: matrix products may differ in their last bits from run to run; start Python with"
        f" {WORKSPACE}={REPEATABLE_WORKSPACES[0]}",
        LeadlineWarning,
        stacklevel=3,
    )


def _products() -> list[tuple[Any, bool]]:
    """Return what has a float32 precision of its own, and whether it is on CUDA; nothing before PyTorch 2.9."""
    if not hasattr(torch.backends, "fp32_precision"):
        return []
    cudnn, onednn = torch.backends.cudnn, torch.backends.mkldnn
    cuda = [torch.backends.cuda.matmul, *(getattr(cudnn, name) for name in ("conv", "rnn"))]
    cpu = [getattr(onednn, name) for name in ("matmul", "conv", "rnn")]
    return [*((one, True) for one in cuda), *((one, False) for one in cpu)]


def _read(owner: Any, name: str) -> Any:
    """Return a setting; None: PyTorch refuses to tell an old one that contradicts the new ones of 2.9."""
    try:
        return getattr(owner, name)
    except RuntimeError:
        return None


def _read_matmul_precision() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which operations on a device compute in the types that they are given."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=False)


@contextmanager
def _on_cuda(device: torch.device) -> Iterator[None]:
    """Make a CUDA device the current one, and let operations be deterministic where they can; elsewhere do nothing."""
    if device.type != "cuda":
        yield
        return
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    if not strict:
        memory.fill_uninitialized_memory = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.cuda.device(device):
            yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        memory.fill_uninitialized_memory = fills
