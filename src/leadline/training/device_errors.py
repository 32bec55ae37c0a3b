"""Which errors mean that memory ran out, or that a device is lost."""

import torch


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a GPU or on the host (a plain RuntimeError of PyTorch)."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def lost_device(error: BaseException) -> bool:
    """Return whether an error means that this process can no longer use its device.

    PyTorch has a class for such errors since 2.8; before, they are a RuntimeError that begins with `CUDA error`. Those
    that say that something cannot be captured in a graph (CUDA's codes 900 to 908) leave the device as it was.
    """
    if "captur" in str(error).partition("\n")[0]:
        return False
    kind = getattr(torch, "AcceleratorError", None)
    if kind is None:
        return isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
    return isinstance(error, kind) and not ran_out_of_memory(error)
