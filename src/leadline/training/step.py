"""One step of training: the gradient of a batch, and the update of the weights by it.

Nothing is read back from the device, but by the loss scale of float16 and a look at whether the loss is finite. On a
CUDA device the forward and the backward pass are captured as a graph, where they can be, and replayed: the kernels are
the same and so are the bits, but they start at once and not one by one. The optimizer steps as it always does.
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from leadline.data.batches import Data, Dataset
from leadline.data.pixels import to_memory_format
from leadline.distributed.batch_norm import sync_batch
from leadline.distributed.gradients import GradientSum
from leadline.distributed.process_group import ProcessGroup
from leadline.distributed.shard import Shard
from leadline.errors import LeadlineError, LeadlineWarning
from leadline.networks.modules import is_capturable, keep_draws, noise_at, redraw
from leadline.parts.losses import Loss
from leadline.parts.reference import Reference, drawing_of
from leadline.parts.tasks import task_of
from leadline.probes.flow import Flow
from leadline.seeds import GENERATORS, LOSS, OPTIMIZER
from leadline.specs import TrainingSpec
from leadline.training.device_errors import lost_device
from leadline.training.freezing import set_to_train
from leadline.training.numerics import autocast
from leadline.training.recipe import rate_factor
from leadline.training.state import PartOfEpoch, TrainState

LOOK_EVERY = 50
"""Steps on a GPU between looks at whether the loss is still finite."""

EAGER_STEPS = 3
"""Steps before the one that is captured, in which libraries choose their algorithms and allocate their workspaces."""

Images = Float[Tensor, "b c h w"]
Targets = Shaped[Tensor, "b *targets"]


class Diverged(LeadlineError):
    """The training loss became NaN or infinite.

    Attributes:
        step: the optimizer step, counted from 1, whose loss was not finite.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the training loss was {loss} at step {step}")
        self.step = step


class Step:
    """A step of training, called with each batch of an epoch.

    Args:
        state: what is trained.
        data: what it is trained on.
        spec: the recipe.
        seed: of the streams for noise and for what custom parts draw.
        group: the processes that train together.

    Raises:
        SpecError: the data mix labels, and the loss does not take probabilities.
    """

    def __init__(self, state: TrainState, data: Data, spec: TrainingSpec, seed: int, group: ProcessGroup) -> None:
        self.state, self.spec, self.seed, self.group = state, spec, seed, group
        self.device, self.examples = data.device, data.train_size
        self.steps = math.ceil(data.train_size / spec.batch_size)
        self.task = task_of(data.spec.task)
        self.criterion: Loss = spec.loss or self.task.loss
        data.spec.check_loss(self.criterion)
        self.look_every = 1 if data.device.type == "cpu" else LOOK_EVERY
        self._rate = rate_factor(spec, self.steps * spec.epochs)
        zero_grad = getattr(state.optimizer.zero_grad, "__func__", None)
        self._own_zero_grad = zero_grad is not torch.optim.Optimizer.zero_grad
        self._gradient_sum = GradientSum(group, state.model) if group.world_size > 1 else None
        self._losses: NDArray[np.float32] | Sequence[Tensor] = ()  # those of the epoch, to write to one by one
        self._uncounted: list[tuple[Tensor, Tensor]] = []  # outputs and targets

    def start_epoch(self) -> PartOfEpoch:
        """Return the part of the epoch that is done, which the next steps extend."""
        set_to_train(self.state.model, self.spec)
        part = self.state.part
        if part is None:
            losses = torch.zeros(self.steps, device=self.device)
            part = self.state.part = PartOfEpoch(losses, torch.zeros((), dtype=torch.int64, device=self.device))
        self._losses = part.losses.numpy() if self.look_every == 1 else part.losses.unbind()
        self._uncounted.clear()
        return part

    def __call__(self, images: Images, targets: Targets) -> Float[Tensor, ""]:
        """Take the next step of the epoch; return the mean loss of the whole batch, on the device.

        The number of correct predictions is not brought up to date: `count` does that for all steps at once.

        Args:
            images: of this process.
            targets: of these images; probabilities of the classes where the data mix labels.

        Raises:
            Diverged: the loss of this step is not finite, or on a GPU that of one of the last 50.
        """
        state, part = self.state, self.state.part
        assert part is not None
        index, optimizer, scaler = part.batches, state.optimizer, state.scaler
        rows = min(self.spec.batch_size, self.examples - index * self.spec.batch_size)  # on all devices
        factor = self._rate(state.step)
        for parameters in optimizer.param_groups:
            parameters["lr"] = parameters["initial_lr"] * factor
        loss = self.differentiate(self._resize(images), targets, rows)
        if self._gradient_sum is not None:
            right = self.task.count_right(*self._uncounted.pop())
            loss, right = self._gradient_sum.finish(loss, right)
            part.correct += right
        scaler.unscale(optimizer)
        if self.spec.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), self.spec.clip_norm)
        self._keep_loss(loss, index, rows)
        with drawing_of(self.spec.optimizer, self.seed, OPTIMIZER, state.step):
            scaler.step(optimizer)
        part.batches += 1
        state.step += 1
        if state.average is not None:
            state.average.update(state.step, self.steps * self.spec.epochs, self.spec.epochs)
        return loss

    def count(self) -> None:
        """Add the correct predictions of the steps since the last call to those of the epoch."""
        if self._uncounted:
            outputs, targets = map(torch.cat, zip(*self._uncounted, strict=True))
            assert self.state.part is not None
            self.state.part.correct += self.task.count_right(outputs, targets)
            self._uncounted.clear()

    def differentiate(self, images: Images, targets: Targets, rows: int) -> Float[Tensor, ""]:
        """Compute the gradients of a batch's mean loss, in the parts that the recipe asks for; return the loss.

        Args:
            images: of this process.
            targets: of these images.
            rows: images of the whole batch, on all devices.
        """
        parts = self.spec.parts(rows, self.group.world_size)
        if parts == 1:
            first = None if self.group.world_size == 1 else self.group.shard.rows(rows).start
            outputs, loss = self._differentiate_part(images, targets, rows, first)
            self._uncounted.append((outputs, targets))
            return loss
        start, done = self.group.shard.rows(rows).start, []
        for number in range(parts):
            own = Shard(number, parts).rows(len(images))
            done.append(
                self._differentiate_part(
                    images[own], targets[own], rows, start + own.start, number == 0, number == parts - 1
                )
            )
        all_outputs, losses = zip(*done, strict=True)
        self._uncounted.append((torch.cat(all_outputs), targets))
        return torch.stack(losses).sum()

    def _differentiate_part(
        self,
        images: Images,
        targets: Targets,
        rows: int,
        first: int | None,
        is_first: bool = True,
        is_last: bool = True,
    ) -> tuple[Float[Tensor, "part outputs"], Float[Tensor, ""]]:
        """Add to the gradients those of a part of a batch; return its outputs and its part of the batch's mean loss.

        Args:
            images: of the part.
            targets: of these images.
            rows: images of the whole batch, on all devices.
            first: row of the batch with which the part begins; None: it is the whole batch.
            is_first: whether there are no gradients of the batch yet.
            is_last: whether the gradients are then those of all of this process's rows.
        """
        state = self.state
        with noise_at(state.model, self.seed, state.step, first, rows), sync_batch(state.model, self.group):
            with autocast(self.device, self.spec.precision):
                outputs = state.model(images)
                with drawing_of(self.criterion, self.seed, LOSS, state.step, *([first] if first else [])):
                    loss = self._part_of_mean_loss(outputs, targets, rows)
            if is_first:
                if self._own_zero_grad:
                    state.optimizer.zero_grad()
                else:  # what PyTorch's does, which takes as long as a small layer
                    for group in state.optimizer.param_groups:
                        for parameter in group["params"]:
                            parameter.grad = None
            exchanged = self._gradient_sum if is_last else None
            with nullcontext() if exchanged is None else exchanged.overlap():
                state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return outputs.detach(), loss.detach()

    def _resize(self, images: Images) -> Images:
        """Return images of the size that the recipe asks for in this epoch, bilinearly with antialiasing."""
        size = self.spec.image_size(self.state.epoch, *images.shape[2:])
        if size == images.shape[2:]:
            return images
        if len(images) == 0:  # of a batch with fewer images than devices
            return images.new_empty((0, images.shape[1], *size))
        resized = F.interpolate(images, size, mode="bilinear", antialias=True)
        return to_memory_format(resized, self.spec.channels_last)

    def _part_of_mean_loss(
        self, outputs: Float[Tensor, "part outputs"], targets: Targets, rows: int
    ) -> Float[Tensor, ""]:
        """Return the part of some rows, of all or of none, in the mean loss of a batch of so many."""
        smoothing = self.spec.label_smoothing
        if len(targets) == rows:
            return self.criterion.compute(outputs, targets, "mean", smoothing)
        return self.criterion.compute(outputs, targets, "sum", smoothing) / rows

    def _keep_loss(self, loss: Float[Tensor, ""], index: int, rows: int) -> None:
        """Add the loss of a batch to those of the epoch; look from time to time whether they are finite."""
        first = index - index % self.look_every
        if isinstance(self._losses, np.ndarray):  # on a CPU, where nothing is waited for
            losses = [loss.item()]
            self._losses[index] = losses[0] * rows
        else:
            torch.mul(loss, rows, out=self._losses[index])
            if index + 1 < self.steps and (index + 1) % self.look_every:
                return
            losses = torch.stack(list(self._losses[first : index + 1])).tolist()
        for number, value in enumerate(losses, first):
            if not math.isfinite(value):
                raise Diverged(self.state.step + 1 - index + number, value)


class CapturedStep(Step):
    """A step whose forward and backward pass are replayed as a CUDA graph.

    The first steps are eager; so are those of a smaller batch, and those in which outputs are probed. Noise is drawn
    before each replay into the tensors that the graph reads. If the graph cannot be captured, a warning says why, and
    all steps are eager.
    """

    def __init__(self, state: TrainState, data: Data, spec: TrainingSpec, seed: int, group: ProcessGroup) -> None:
        super().__init__(state, data, spec, seed, group)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._before_capture: float = EAGER_STEPS
        self._images = self._targets = self._loss = self._right = torch.empty(0)  # what the graph reads and writes
        self._gradients: list[Tensor | None] = []
        self._parameters = list(state.model.parameters())

    def differentiate(self, images: Images, targets: Targets, rows: int) -> Float[Tensor, ""]:
        """Replay the graph on a batch, or compute as `Step.differentiate` where there is none that fits."""
        if rows != self.spec.batch_size or self._probes_outputs() or self._before_capture == math.inf:
            return super().differentiate(images, targets, rows)
        with noise_at(self.state.model, self.seed, self.state.step):
            redraw(self.state.model)
        if self._graph is None and self._before_capture == 0:
            self._graph = self._try_to_capture(images, targets)
        if self._graph is None:
            self._before_capture -= 1
            with keep_draws(self.state.model):
                return super().differentiate(images, targets, rows)
        self._images.copy_(images)
        self._targets.copy_(targets)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient  # an eager step has put others there
        assert self.state.part is not None
        self.state.part.correct += self._right
        return self._loss

    def _probes_outputs(self) -> bool:
        part = self.state.part
        return part is not None and isinstance(part.flow, Flow) and part.flow.watches_outputs

    def _try_to_capture(self, images: Images, targets: Targets) -> "torch.cuda.CUDAGraph | None":
        self._images, self._targets = images.clone(), targets.clone()
        try:
            with keep_draws(self.state.model):
                graph = self._capture()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or lost_device(error):
                raise
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"training goes on without a CUDA graph: {reason}", LeadlineWarning, stacklevel=2)
            self._before_capture = math.inf
            return None
        self._gradients = [parameter.grad for parameter in self._parameters]
        return graph

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Record the forward and the backward pass, whose results stay where the recording puts them.

        Only one thread may at a time: the whole device is synchronised before, and draws on its global generator fail
        meanwhile.
        """
        graph, stream = torch.cuda.CUDAGraph(), _capture_stream(self.device)
        with (
            GENERATORS,
            torch.cuda.stream(stream),  # which a capture that fails does not leave
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            self._loss = super().differentiate(self._images, self._targets, len(self._targets))
            self._right = self.task.count_right(*self._uncounted.pop())
        return graph


def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the thread's current stream or, instead of the default one, which cannot be captured, another.

    Products in graphs that were captured on one stream share a workspace of cuBLAS. So threads that replay graphs at
    the same time, each on a stream of its own, capture them there.
    """
    current = torch.cuda.current_stream(device)
    return current if current != torch.cuda.default_stream(device) else _side_stream(device)


@cache  # that of `torch.cuda.graph` is on the device where it was first used
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def prepare_step(state: TrainState, data: Data, spec: TrainingSpec, seed: int, group: ProcessGroup) -> Step:
    """Return the step of a training: captured where it can be.

    Eager are steps on a CPU or an Apple GPU, on several devices, of images that are decoded during training, of batches
    in parts, of images of several sizes, with blocks that are recomputed, and with a custom loss or network. A custom
    network whose class has a true attribute `capturable` is captured: it draws no random numbers, and does in every
    step the same with tensors of the same size.
    """
    model = state.model
    captured = (
        data.device.type == "cuda"
        and group.world_size == 1
        and spec.accumulate == 1
        and spec.resizing is None
        and isinstance(data, Dataset)
        and not isinstance(spec.loss, Reference)
        and is_capturable(model)
    )
    return (CapturedStep if captured else Step)(state, data, spec, seed, group)
