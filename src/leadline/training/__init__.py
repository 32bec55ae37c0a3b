"""Training: the one loop, its recipe and its state, on one device or several."""

from leadline.training.evaluation import Evaluation, evaluate
from leadline.training.loop import check_devices, train
from leadline.training.recipe import choose_device, device_line, prepare
from leadline.training.state import TrainState
from leadline.training.step import Diverged

__all__ = [
    "Diverged",
    "Evaluation",
    "TrainState",
    "check_devices",
    "choose_device",
    "device_line",
    "evaluate",
    "prepare",
    "train",
]
