"""How many bytes of activations a network holds, found by watching it work."""

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leadline.networks.modules.shapes import Watching

InputShape = tuple[int, int, int]
META = torch.device("meta")


def training_memory(model: nn.Module, input_shape: InputShape, device: torch.device = META) -> int:
    """Return the bytes, per image, of what autograd keeps for the backward pass beside the parameters.

    Args:
        model: on `device`; left in training mode.
        input_shape: channels, height, width of an image.
        device: where the model is; the meta device computes nothing.
    """
    images = torch.zeros(2, *input_shape, device=device)  # batch normalisation wants more than one
    kept = Kept(model)
    with torch.enable_grad(), kept:
        output = model.train()(images)
    del output
    return kept.bytes // 2


def inference_memory(model: nn.Module, input_shape: InputShape, device: torch.device = META) -> int:
    """Return the most bytes, of one image, that are alive at once in a forward pass without gradients.

    Args:
        model: on `device`; left in evaluation mode.
        input_shape: channels, height, width of an image.
        device: where the model is; the meta device computes nothing.
    """
    image = torch.zeros(1, *input_shape, device=device)
    live = Live(model, image)
    with torch.no_grad(), live:
        model.eval()(image)
    return live.peak


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps, in the `with` block, for the backward pass beside the parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(self._keep, lambda tensor: tensor)
        self._owned = {_storage(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        self._tensors: dict[int, Tensor] = {}  # tensors stay alive here, so that no two share an address

    def _keep(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._owned:
            self._tensors[_storage(tensor)] = tensor
        return tensor

    @property
    def bytes(self) -> int:
        """Bytes of all storages that are kept."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._tensors.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


class Live(Watching):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages, beside those of the model, that operations have made and some tensor still holds.

    Attributes:
        peak: the most bytes that were alive at once, those of the images included.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak: int = 0
        self.holders: Counter[int] = Counter()
        self.owned = {_storage(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        self.add(images)

    def add(self, tensor: Tensor) -> None:
        """Count the storage of a tensor for as long as a tensor holds it."""
        key, size = _storage(tensor), tensor.untyped_storage().nbytes()
        if key in self.owned:
            return
        if not self.holders[key]:
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
        self.holders[key] += 1
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.holders[key] -= 1
        if not self.holders[key]:
            self.bytes -= size

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return result
