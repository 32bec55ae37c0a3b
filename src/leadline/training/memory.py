"""Recognising out-of-memory errors."""

import torch


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a GPU or on the host (a plain RuntimeError of PyTorch)."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
