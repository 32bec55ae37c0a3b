"""How trials did on test images: which they got wrong, in a bit for each, so that 10,000 trials take little memory."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadline.parts.metrics import Outputs


@dataclass(frozen=True, eq=False)
class Images:
    """Test images with their labels, in their order; trials that were tested on the same ones share it."""

    count: int
    chance: float  # accuracy of giving each of them the most common label, a fraction


@dataclass(frozen=True, eq=False)
class Tested:
    """What a trial's network got wrong."""

    images: Images
    packed: NDArray[np.uint8] | None  # a bit for each image, 1 where it is wrong; None: images have no single label

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether the network was wrong about each image, shape (images,)."""
        assert self.packed is not None
        return np.unpackbits(self.packed, count=self.images.count).astype(bool)

    def is_comparable(self, other: "Tested") -> bool:
        """Whether two networks predicted labels of the same images."""
        return self.images is other.images and self.packed is not None and other.packed is not None


class ImageSets:
    """The sets of test images that trials were tested on, recognised by their labels."""

    def __init__(self) -> None:
        self._last: tuple[NDArray[Any], NDArray[Any] | None, Images] | None = None
        self._known: dict[tuple[bytes, bytes | None], Images] = {}

    def tested(self, outputs: Outputs) -> Tested:
        """Return what a network got wrong."""
        labels, predicted = outputs.labels, outputs.predicted
        single = labels.ndim == 1 and labels.shape == predicted.shape
        return Tested(self._images(outputs), np.packbits(labels != predicted) if single else None)

    def _images(self, outputs: Outputs) -> Images:
        labels, examples = outputs.labels, outputs.examples
        if self._last is not None and self._last[0] is labels and self._last[1] is examples:
            return self._last[2]
        key = _digest(labels), None if examples is None else _digest(examples)
        if key not in self._known:
            common = np.unique(labels, return_counts=True)[1].max(initial=0)
            self._known[key] = Images(len(labels), float(common) / max(1, labels.size))
        self._last = labels, examples, self._known[key]
        return self._known[key]


def _digest(values: NDArray[Any]) -> bytes:
    """Return what arrays of the same shape, kind and values have in common."""
    kind = {"b": np.int64, "i": np.int64, "u": np.int64, "f": np.float64}.get(values.dtype.kind, object)
    values = values.astype(kind)
    content = repr(values.tolist()).encode() if kind is object else values.tobytes()
    return hashlib.blake2b(f"{values.shape} {values.dtype}".encode() + content, digest_size=16).digest()
