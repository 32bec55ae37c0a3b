"""Whatever a probe does, and however it ends, the model and the generators are as they were before."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.probes.snapshots.cka.measurement import cka
from leadline.probes.snapshots.hessian.measurement import hessian
from leadline.probes.snapshots.jacobian.measurement import jacobian
from leadline.probes.snapshots.landscape.measurement import along, between, plane
from leadline.probes.snapshots.noise.measurement import gradient_noise
from leadline.probes.snapshots.shattered.measurement import shattered

Probe = Callable[..., Any]


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def labels(count: int = 8) -> Tensor:
    return torch.arange(count) % 10


def ours() -> nn.Module:
    return build(cifar_resnet(8), (1, 8, 8), 10, seed=0)


class Own(nn.Module):
    """A custom module: works in place, draws in evaluation, counts its calls, has a part frozen."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(144, 10)
        self.stem.requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = x.sub_(0.1)
        x = torch.relu_(self.norm(self.stem(x))).flatten(1)
        return self.head(self.dropout(x + 0.01 * torch.rand(x.shape)))


def own() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Own()


PROBES: dict[str, Probe] = {
    "jacobian": lambda model, **more: jacobian(model, images(), steps=3, chunk=4, **more),
    "shattered": lambda model, **more: shattered(model, images(), points=5, chunk=2, **more),
    "cka": lambda model, **more: cka(model, images(), ours(), batch_size=4, **more),
    "along": lambda model, **more: along(model, images(), labels(), points=3, chunk=3, **more),
    "plane": lambda model, **more: plane(model, images(), labels(), points=2, **more),
    "between": lambda model, **more: between(model, images(), labels(), model, points=3, **more),
    "hessian": lambda model, **more: hessian(
        model, images(), labels(), steps=4, vectors=1, trace_vectors=2, chunk=5, **more
    ),
    "noise": lambda model, **more: gradient_noise(model, images(), labels(), batch_size=2, **more),
}


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a probe could change, and the global generators."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [len(getattr(module, kind)) for module in model.modules() for kind in hooks],
        "own": [sorted(vars(module)) for module in model.modules()],
        "tensors": {
            name: (id(tensor), tensor.detach().numpy().tobytes(), tensor.requires_grad, id(tensor.grad))
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        },
        "gradients": [p.grad if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        "random": torch.get_rng_state().numpy().tobytes(),
        "enabled": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def prepared(make: Callable[[], nn.Module]) -> nn.Module:
    """A model as it is in the midst of training: gradients held, running statistics of its own, mixed modes."""
    model = make()
    model(images()).sum().backward()
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    return model


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("make", [ours, own])
@pytest.mark.parametrize("name", PROBES)
def test_a_model_is_left_as_it_was(name: str, make: Callable[[], nn.Module], batch_statistics: bool) -> None:
    with torch.random.fork_rng():
        model = prepared(make)
        before = snapshot(model)
        PROBES[name](model, batch_statistics=batch_statistics)
        assert snapshot(model) == before


@pytest.mark.parametrize("make", [ours, own])
@pytest.mark.parametrize("name", PROBES)
def test_a_model_is_left_as_it_was_when_the_probe_is_stopped(name: str, make: Callable[[], nn.Module]) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    model = prepared(make)
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        PROBES[name](model, progress=stop, batch_statistics=True)
    assert snapshot(model) == before


@pytest.mark.parametrize("name", PROBES)
def test_a_failure_inside_the_forward_pass_leaves_no_hook(name: str) -> None:
    model = prepared(ours)

    def fail(*_: object) -> None:
        raise RuntimeError("inside")

    handle = model.head.register_forward_hook(fail)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="inside"):
        PROBES[name](model)
    assert snapshot(model) == before
    handle.remove()


@pytest.mark.parametrize("name", PROBES)
def test_what_is_around_the_call_does_not_matter(name: str) -> None:
    model = prepared(own)
    expected = PROBES[name](model).frame()
    for around in (torch.no_grad, torch.inference_mode):
        torch.rand(3)  # the module's own draws go by the probe's seed
        with around():
            assert PROBES[name](model).frame().equals(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_a_compiled_model_is_measured_as_its_original(name: str) -> None:
    model = ours()
    compiled = torch.compile(model, backend="eager")
    assert PROBES[name](compiled).frame().equals(PROBES[name](model).frame())
