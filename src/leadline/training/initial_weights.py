"""What a recipe changes of a network before its first step: weights from a file, filters from images."""

from pathlib import Path

from torch import nn

from leadline.data.batches import Data
from leadline.data.files import default_data_dir, find_file
from leadline.data.pixels import normalise
from leadline.networks.modules.whitening import find_first_convolution, images_to_read, whiten
from leadline.networks.weights import start_from
from leadline.specs import TrainingSpec


def set_initial_weights(model: nn.Module, spec: TrainingSpec, data: Data, data_dir: Path | None = None) -> str:
    """Give a network, whose weights are drawn, those that its recipe takes from elsewhere.

    Args:
        model: the network, changed in place.
        spec: the recipe.
        data: what the network is trained on.
        data_dir: what the path of a file is relative to; None: the default folder.

    Returns:
        A sentence that says so where a file does not fit the last layer, or an empty text.

    Raises:
        SpecError: the file does not fit the network, or the network has no first convolution to whiten.
        DataError: the file is missing, or an image has been removed or changed since it was checked.
    """
    if spec.weights is not None:
        return start_from(model, find_file(spec.weights, data_dir or default_data_dir(), "training.weights"))
    if spec.whitening:
        first = find_first_convolution(model, data.shape)
        count = min(images_to_read(first, data.shape), data.train_size)
        spread = [number * data.train_size // count for number in range(count)]  # data may be sorted by class
        whiten(first, normalise(data.images("train", spread).to(data.device), data.mean, data.scale))
    return ""
