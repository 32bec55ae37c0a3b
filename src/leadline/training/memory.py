"""Memory that ran out, in whatever words it is said."""

import torch


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left, on a GPU or on the host, where PyTorch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
