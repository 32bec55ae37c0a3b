import copy
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from leadline.errors import DataError, SpecError
from leadline.networks import cifar_plain, cifar_resnet, comparative_plain, highway, recurrent_resnet
from leadline.networks.modules import build
from leadline.probes.flow import WHAT, Flow, probe
from leadline.probes.schedules import either, every, first, last, log_spaced
from leadline.probes.selection import select
from leadline.probes.table import (
    ACTIVATION_GRADIENT,
    BRANCH,
    DEAD,
    KINDS,
    MEAN,
    SECOND_MOMENT,
    UPDATE,
    WEIGHT_GRADIENT,
    ZEROS,
    FlowTable,
)

SHAPE = (3, 8, 8)


def batch(size: int = 20, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, *shape, generator=generator), torch.randint(0, 10, (size,), generator=generator)


def mlp(seed: int = 0, inputs: int = 6) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 10))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def value(table: FlowTable, kind: str, name: str, row: int = -1) -> float:
    names, values = table.series(kind)
    return float(values[row, names.index(name)])


def outputs_and_gradients(
    model: nn.Module, names: list[str], images: Tensor, labels: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """The slow way: a copy of the model, its modules' outputs, and autograd's gradients with respect to them."""
    model = copy.deepcopy(model)
    outputs: dict[str, Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda _m, _a, out, name=name: outputs.__setitem__(name, out))
    loss = F.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, list(outputs.values()))
    return dict(zip(outputs, zip(outputs.values(), gradients, strict=True), strict=True))


@pytest.mark.parametrize("images_seen", [None, 7])
@pytest.mark.parametrize("spec", [cifar_resnet(8), cifar_plain(8), highway(8)], ids=["residual", "plain", "gated"])
def test_outputs_are_those_of_slow_autograd(spec: object, images_seen: int | None) -> None:
    model = build(spec, SHAPE, 10, seed=1)
    images, labels = batch()
    names = list(select(model).units)
    assert names[0] == "stem" and names[-1] == "head" and len(names) > 4
    slow = outputs_and_gradients(model, names, images, labels)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with probe(model, images=images_seen) as flow:
        train_step(model, optimizer, images, labels)
        table = flow.table()
    assert table.series(MEAN)[0] == tuple(names)
    for name in names:
        whole, gradient = (each.detach().double() for each in slow[name])
        seen = whole[:images_seen]
        grown = (len(images) / len(seen)) ** 0.5
        assert value(table, MEAN, name) == pytest.approx(float(seen.mean()), rel=1e-5, abs=1e-7)
        assert value(table, SECOND_MOMENT, name) == pytest.approx(float(seen.square().mean()), rel=1e-5)
        assert value(table, ZEROS, name) == pytest.approx(float((seen == 0).double().mean()), abs=1e-6)
        channels = seen.transpose(0, 1).flatten(1)
        assert value(table, DEAD, name) == pytest.approx(float((channels == 0).all(1).double().mean()), abs=1e-6)
        norm = float(gradient[:images_seen].norm()) * grown
        assert value(table, ACTIVATION_GRADIENT, name) == pytest.approx(norm, rel=1e-5)


def test_weights_gradients_and_updates_are_those_of_slow_autograd() -> None:
    model = build(cifar_resnet(8), SHAPE, 10, seed=1)
    images, labels = batch()
    reference = copy.deepcopy(model)
    weights = {name: p for name, p in reference.named_parameters() if p.ndim > 1}
    gradients = torch.autograd.grad(F.cross_entropy(reference(images), labels), list(weights.values()))
    reference.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.01, fused=True)
    with probe(model) as flow:
        train_step(model, optimizer, images, labels)
        table = flow.table()
    assert table.series(WEIGHT_GRADIENT)[0] == table.series(UPDATE)[0] == tuple(weights)
    after = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for (name, before), gradient in zip(weights.items(), gradients, strict=True):
        assert value(table, WEIGHT_GRADIENT, name) == pytest.approx(float(gradient.norm()), rel=1e-5)
        ratio = float((after[name] - before).norm() / before.norm())
        assert value(table, UPDATE, name) == pytest.approx(ratio, rel=1e-4)


def test_branch_against_shortcut() -> None:
    images, labels = batch()
    for spec in (cifar_resnet(8), cifar_resnet(8, "B"), cifar_resnet(8, "scaled"), highway(8)):
        model = build(spec, SHAPE, 10, seed=2)
        caught: dict[str, tuple[Tensor, Tensor]] = {}
        reference = copy.deepcopy(model)
        for name, module in reference.named_modules():
            if getattr(module, "join", None) is not None:
                module.join.register_forward_hook(lambda _m, args, _o, at=caught, key=name: at.__setitem__(key, args))
        reference(images)
        with probe(model, what="activations", images=None) as flow:
            train_step(model, torch.optim.SGD(model.parameters(), 0.1), images, labels)
        names, _ = flow.table().series(BRANCH)
        assert list(names) == list(caught) and len(names) >= 3
        for name, (x, y) in caught.items():
            join = reference.get_submodule(name).join
            # a join is linear in its branch: without it, it gives the shortcut's term alone
            with torch.no_grad():
                shortcut = join(x, torch.zeros_like(y))
                branch = join(x, y) - shortcut
            assert value(flow.table(), BRANCH, name) == pytest.approx(float(branch.norm() / shortcut.norm()), rel=1e-4)


def test_concatenation_compares_what_stands_side_by_side() -> None:
    from leadline.networks import densenet

    model = build(densenet(10, 4), SHAPE, 10)
    images, labels = batch()
    name = select(model).blocks[0]
    found: list[float] = []
    model.get_submodule(name).join.register_forward_hook(
        lambda _m, a, _o: found.append(float(a[1].detach().norm() / a[0].detach().norm()))
    )
    with probe(model, what="activations", images=None) as flow:
        train_step(model, torch.optim.SGD(model.parameters(), 0.1), images, labels)
    assert value(flow.table(), BRANCH, name) == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("make", [lambda: build(cifar_resnet(8), SHAPE, 10, seed=3), mlp], ids=["residual", "mlp"])
def test_training_is_the_same_to_the_bit_and_no_hook_stays(make: Callable[[], nn.Module]) -> None:
    def trained(probed: bool) -> nn.Module:
        model = make()
        random = torch.get_rng_state()
        shape = (6,) if isinstance(model, nn.Sequential) else SHAPE
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        flow = probe(model) if probed else None
        if flow:
            flow.__enter__()
        for seed in range(3):
            train_step(model, optimizer, *batch(seed=seed, shape=shape))
        if flow:
            flow.__exit__()
            assert len(flow.table().steps) == 3
        assert torch.equal(torch.get_rng_state(), random)
        return model

    plain, probed = trained(False), trained(True)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, probed.state_dict()[name]), name
    assert no_hooks(probed)


def no_hooks(model: nn.Module) -> bool:
    from torch.optim import optimizer

    if optimizer._global_optimizer_pre_hooks or optimizer._global_optimizer_post_hooks:
        return False
    return not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_go_when_training_breaks_off(error: type[BaseException]) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(error), probe(model, optimizer) as flow:
        train_step(model, optimizer, *batch(shape=(6,)))
        model(batch(shape=(6,))[0])
        raise error
    assert no_hooks(model) and not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert flow.table().steps.tolist() == [0]


def test_accumulated_passes_are_one_batch() -> None:
    images, labels = batch(16, shape=(6,))
    tables = []
    for parts in (1, 4):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with probe(model, images=None) as flow:
            for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True):
                (F.cross_entropy(model(x), y) / parts).backward()
            optimizer.step()
        tables.append(flow.table())
    whole, parted = tables
    assert whole.names == parted.names and parted.values.shape[0] == 1
    np.testing.assert_allclose(whole.values, parted.values, rtol=1e-4, atol=1e-6)


def test_a_module_called_again_has_a_series_for_each_call() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = torch.tanh(self.hidden(x))
            return x

    model, (images, labels) = Cell(), batch(shape=(6,))
    labels = labels % 6
    expected, gradients = [], []
    x = images
    states = []
    for _ in range(3):
        states.append(F.linear(x, model.hidden.weight, model.hidden.bias))
        x = torch.tanh(states[-1])
    gradients = torch.autograd.grad(F.cross_entropy(x, labels), states)
    expected = [float(gradient.norm()) for gradient in gradients]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with probe(model, images=None) as flow:
        for _ in range(2):
            train_step(model, optimizer, images, labels)
    names, values = flow.table().series(ACTIVATION_GRADIENT)
    assert names == ("hidden", "hidden#2", "hidden#3")
    assert values[0] == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(values).all() and values.shape == (2, 3)


def test_a_recurrent_network_has_its_steps_as_blocks() -> None:
    model = build(recurrent_resnet(), SHAPE, 10)
    with probe(model) as flow:
        train_step(model, torch.optim.SGD(model.parameters(), 0.1), *batch(4))
    names, values = flow.table().series(ACTIVATION_GRADIENT)
    blocks = flow.table().blocks
    assert len(blocks) > 2 and set(blocks) <= set(names) and np.isfinite(values).all()


def test_frozen_and_unused_parameters_are_not_measured() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    model.register_module("aside", nn.Linear(3, 3))
    layers = nn.ModuleList(list(model)[:5])
    model.forward = lambda x: layers[4](layers[3](layers[2](layers[1](layers[0](x)))))  # type: ignore[method-assign]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    with probe(model, what=["gradients", "updates"]) as flow:
        train_step(model, optimizer, *batch(shape=(6,)))
    table = flow.table()
    assert np.isnan(value(table, WEIGHT_GRADIENT, "0.weight")) and np.isnan(value(table, UPDATE, "0.weight"))
    assert np.isnan(value(table, WEIGHT_GRADIENT, "aside.weight")) and value(table, UPDATE, "aside.weight") == 0
    assert value(table, WEIGHT_GRADIENT, "2.weight") > 0 and value(table, UPDATE, "2.weight") > 0


def test_evaluation_between_is_not_measured() -> None:
    images, labels = batch(shape=(6,))
    tables = []
    for evaluated in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with probe(model) as flow:
            for _ in range(2):
                train_step(model, optimizer, images, labels)
                if evaluated:
                    model.eval()
                    model(images * 100)
                    model.train()
                    with torch.no_grad():
                        model(images * 100)
        tables.append(flow.table())
    np.testing.assert_array_equal(tables[0].values, tables[1].values)


def test_units_are_dead_that_no_step_of_the_epoch_saw() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    rows = [[1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, -1], [-1.0, -1, 1]]
    with probe(model, what="activations", steps_per_epoch=2) as flow:
        for row in rows:
            train_step(model, optimizer, torch.tensor([row]), torch.tensor([0]))
        _, values = flow.table().series(DEAD)
        assert values[:, 1] == pytest.approx([np.nan, 1 / 3, np.nan, 2 / 3], nan_ok=True)
        train_step(model, optimizer, torch.tensor([rows[0]]), torch.tensor([0]))
        assert value(flow.table(), DEAD, "1") == pytest.approx(2 / 3)  # of the epoch so far
        train_step(model, optimizer, torch.tensor([rows[1]]), torch.tensor([0]))
    _, values = flow.table().series(DEAD)
    assert values[:, 1] == pytest.approx([np.nan, 1 / 3, np.nan, 2 / 3, np.nan, 1 / 3], nan_ok=True)


def test_an_epoch_ended_by_hand_counts_dead_units_anew() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with probe(model, what="activations") as flow:
        train_step(model, optimizer, torch.tensor([[1.0, 1.0]]), torch.tensor([0]))
        flow.epoch_end()
        flow.epoch_end()
        train_step(model, optimizer, torch.tensor([[-1.0, 1.0]]), torch.tensor([0]))
        flow.epoch_end()
    assert flow.table().series(DEAD)[1][:, 1].tolist() == [0, 0.5]


def test_channels_of_one_dimensional_convolutions() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[1] = 1
    with probe(model) as flow:
        train_step(model, torch.optim.SGD(model.parameters(), 0.1), *batch(shape=(2, 8)))
    assert value(flow.table(), DEAD, "0") == 0.75


def test_outputs_of_any_kind() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 8, sparse=True)
            self.lstm = nn.LSTM(8, 8, batch_first=True)
            self.out = nn.Linear(8, 10)

        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            return {"logits": self.out(self.lstm(self.embed(tokens))[0][:, -1])}

    model = Attention()
    tokens = torch.arange(20).view(4, 5) % 11
    dense = [p for n, p in model.named_parameters() if n != "embed.weight"]
    optimizers = [torch.optim.SGD(dense, 0.1), torch.optim.SparseAdam([model.embed.weight], 0.01)]
    with probe(model) as flow:
        for _ in range(2):
            F.cross_entropy(model(tokens)["logits"], torch.arange(4)).backward()
            norm = float(model.embed.weight.grad.to_dense().norm())
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    table = flow.table()
    assert table.steps.tolist() == [0, 1]  # both optimizers make one step
    assert value(table, WEIGHT_GRADIENT, "embed.weight") == pytest.approx(norm, rel=1e-5)
    assert {"embed", "lstm", "out"} <= set(table.series(MEAN)[0])
    assert np.isfinite(table.values[:, [kind != DEAD for kind in table.kinds]]).all()


def test_in_place_activations_and_autocast() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 10)
    )
    images, labels = batch()
    slow = outputs_and_gradients(nn.Sequential(*copy.deepcopy(list(model))), ["0", "4"], images, labels)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with probe(model, images=None) as flow:
        train_step(model, optimizer, images, labels)
        assert value(flow.table(), MEAN, "1") == pytest.approx(0, abs=1e-6)  # before the ReLU changed it in place
        assert value(flow.table(), ZEROS, "1") == 0 and value(flow.table(), ZEROS, "2") > 0.3
        assert value(flow.table(), ACTIVATION_GRADIENT, "0") == pytest.approx(float(slow["0"][1].norm()), rel=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    two = flow.table().values[:, [kind != DEAD for kind in flow.table().kinds]]
    assert np.isfinite(two).all() and np.allclose(two[0], two[1], rtol=1, atol=0.1)


@pytest.mark.parametrize("blocks_too", [False, True])
def test_what_checkpointing_recomputes_is_measured_once(blocks_too: bool) -> None:
    spec = cifar_resnet(8)
    layers = ["stages.*.*"] if blocks_too else ["stages.*.*.branch.conv1"]
    tables = []
    for recomputed in (False, True):
        model = build(spec.with_(checkpoint_blocks=recomputed), SHAPE, 10, seed=4)
        with probe(model, layers=layers) as flow:
            train_step(model, torch.optim.SGD(model.parameters(), 0.1), *batch())
        tables.append(flow.table())
    assert tables[0].names == tables[1].names
    np.testing.assert_allclose(tables[0].values, tables[1].values, rtol=1e-5)


def test_checkpointing_of_ones_own_is_measured_once() -> None:
    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(checkpoint(lambda x: torch.relu(self.first(x)), x, use_reentrant=False))

    model = Recomputed()
    with probe(model) as flow:
        train_step(model, torch.optim.SGD(model.parameters(), 0.1), *batch(shape=(6,)))
    assert flow.table().series(MEAN)[0] == ("first", "second")


def test_small_and_infinite_values() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with probe(model) as flow:
        (F.cross_entropy(model(batch(shape=(6,))[0]), batch()[1]) * 1e-27).backward()
        optimizer.step()
        optimizer.zero_grad()
        (model(batch(shape=(6,))[0]).sum() * float("nan")).backward()
        optimizer.step()
    table = flow.table()
    assert 1e-30 < value(table, WEIGHT_GRADIENT, "0.weight", 0) < 1e-25  # its square is no float32
    assert 1e-30 < value(table, ACTIVATION_GRADIENT, "0", 0) < 1e-25
    assert value(table, WEIGHT_GRADIENT, "0.weight", 1) == np.inf == value(table, ACTIVATION_GRADIENT, "0", 1)
    assert not np.isnan(value(table, MEAN, "0", 1))


def test_weights_of_zeros_have_no_nan_ratio() -> None:
    model = nn.Linear(6, 10)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with probe(model) as flow:
        train_step(model, optimizer, *batch(shape=(6,)))
        optimizer.param_groups[0]["lr"] = 0.1
        train_step(model, optimizer, *batch(shape=(6,)))
    assert flow.table().series(UPDATE)[1][:, 0].tolist() == [0, np.inf]
    assert flow.table().series(MEAN)[0] == ("Linear",)


def test_steps_without_an_optimizer() -> None:
    model = mlp()
    expected = []
    with probe(model) as flow:
        for seed in range(3):
            images, labels = batch(seed=seed, shape=(6,))
            model.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            before = model[0].weight.detach().clone()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
            expected.append(float((model[0].weight.detach() - before).norm() / before.norm()))
            flow.step()
    table = flow.table()
    assert table.steps.tolist() == [0, 1, 2]
    column = table.series(UPDATE)[1][:, 0]
    assert np.isnan(column[0]) and column[1:] == pytest.approx(expected[1:], rel=1e-4)
    assert value(table, WEIGHT_GRADIENT, "0.weight") == pytest.approx(float(model[0].weight.grad.norm()), rel=1e-5)


def test_an_optimizer_that_calls_the_loss_itself() -> None:
    model, (images, labels) = mlp(), batch(shape=(6,))
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    with probe(model) as flow:
        optimizer.step(closure)
        gradient = float(model[0].weight.grad.norm())
        assert value(flow.table(), WEIGHT_GRADIENT, "0.weight") == pytest.approx(gradient, rel=1e-5)
        optimizer.step(closure)
    assert flow.table().steps.tolist() == [0, 1]


def test_other_models_optimizers_make_no_step() -> None:
    model, other = mlp(), mlp(1)
    mine, others = (torch.optim.SGD(each.parameters(), 0.1) for each in (model, other))
    with probe(model) as flow:
        for _ in range(3):
            train_step(other, others, *batch(shape=(6,)))
            train_step(model, mine, *batch(shape=(6,)))
            train_step(other, others, *batch(shape=(6,)))
    assert flow.table().steps.tolist() == [0, 1, 2]
    with pytest.raises(SpecError, match="SGD optimizer holds none"):
        probe(model, others)


def test_two_optimizers_given_make_one_step() -> None:
    model = mlp()
    optimizers = [torch.optim.SGD(model[0].parameters(), 0.1), torch.optim.Adam(model[2:].parameters(), 0.1)]
    with probe(model, optimizers) as flow:
        for _ in range(3):
            F.cross_entropy(model(batch(shape=(6,))[0]), batch()[1]).backward()
            for optimizer in optimizers:
                optimizer.step()
    table = flow.table()
    assert table.steps.tolist() == [0, 1, 2] and np.isfinite(table.series(UPDATE)[1]).all()


def test_only_scheduled_steps_have_hooks_and_rows() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    hooked = []
    model[2].register_forward_pre_hook(lambda m, _: hooked.append(len(m._forward_hooks)))
    with probe(model, schedule=every(3), first_step=6) as flow:
        for _ in range(7):
            train_step(model, optimizer, *batch(shape=(6,)))
    assert flow.table().steps.tolist() == [6, 9, 12]
    assert hooked == [1, 0, 0, 1, 0, 0, 1]
    assert np.isfinite(flow.table().series(UPDATE)[1]).all() and np.isfinite(flow.table().series(MEAN)[1]).all()


def test_schedules() -> None:
    def steps(schedule: Callable[[int], bool], stop: int) -> list[int]:
        return [step for step in range(stop) if schedule(step)]

    assert steps(every(4), 10) == [0, 4, 8] and steps(every(), 3) == [0, 1, 2]
    assert steps(first(2, 5), 12) == [0, 1, 5, 6, 10, 11]
    assert steps(last(2, 5), 12) == [3, 4, 8, 9]
    assert steps(either(every(5), last(1, 4)), 9) == [0, 3, 5, 7]
    for per_decade in (1, 3, 10, 50):
        powers = {round(10 ** (k / per_decade)) for k in range(6 * per_decade)}
        assert steps(log_spaced(per_decade), 100_000) == [0, *sorted(p for p in powers if p < 100_000)]
    for wrong in (
        lambda: every(0),
        lambda: first(0, 5),
        lambda: first(1, 0),
        lambda: log_spaced(0),
        lambda: last(1, 0),
    ):
        with pytest.raises(SpecError, match="too small; expected a whole number of 1 or more"):
            wrong()


def test_a_small_buffer_gives_the_same_rows() -> None:
    tables = []
    for capacity in (1, 2, 1000):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with probe(model, capacity=capacity, steps_per_epoch=3) as flow:
            for seed in range(8):
                train_step(model, optimizer, *batch(seed=seed, shape=(6,)))
                assert flow.table(2).steps.tolist() == list(range(max(0, seed - 1), seed + 1))
        tables.append(flow.table())
    for table in tables[:2]:
        assert table.names == tables[2].names
        np.testing.assert_array_equal(table.values, tables[2].values)
        np.testing.assert_array_equal(table.steps, np.arange(8))


def test_a_series_that_comes_later_is_unmeasured_before() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.seldom = nn.Linear(6, 10), nn.Linear(6, 10)
            self.calls = itertools.count()

        def forward(self, x: Tensor) -> Tensor:
            return self.always(x) + (self.seldom(x) if next(self.calls) == 2 else 0)

    model = Sometimes()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with probe(model) as flow:
        for _ in range(4):
            train_step(model, optimizer, *batch(shape=(6,)))
    names, values = flow.table().series(MEAN)
    assert names == ("always", "seldom")
    assert np.isnan(values).tolist() == [[False, True], [False, True], [False, False], [False, True]]


def test_reading_in_the_middle_of_a_step_changes_nothing() -> None:
    tables = []
    for reads in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with probe(model, schedule=lambda step: step != 1) as flow:
            for seed in range(4):
                images, labels = batch(seed=seed, shape=(6,))
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images), labels)
                if reads:
                    assert len(flow.table().steps) == len(flow.frame()["step"].unique())
                loss.backward()
                if reads:
                    flow.table(1)
                optimizer.step()
        tables.append(flow.table())
    np.testing.assert_array_equal(tables[0].values, tables[1].values)
    assert flow.table(0).steps.tolist() == [] and flow.table(9).steps.tolist() == [0, 2, 3]


def test_layers_by_pattern() -> None:
    model = build(cifar_resnet(14), SHAPE, 10)
    everything = select(model)
    assert list(everything.units) == ["stem", *everything.blocks, "head"] and len(everything.blocks) == 6
    chosen = select(model, ["stages.1.*", "head.linear"])
    assert list(chosen.units) == ["stages.1.0", "stages.1.1", "head.linear"]
    assert list(chosen.weights) == [
        *(f"stages.1.{block}.branch.conv{conv}.weight" for block in (0, 1) for conv in (1, 2)),
        "head.linear.weight",
    ]
    assert set(select(model, "stages.0.**.conv?").units) == {
        f"stages.0.{n}.branch.conv{c}" for n in (0, 1) for c in (1, 2)
    }
    with pytest.raises(SpecError, match=r"unknown layer 'stage\.1'; did you mean 'stages\.1'"):
        select(model, "stage.1")
    assert list(select(mlp()).units) == ["0", "1", "2", "3", "4"]
    with pytest.raises(SpecError, match="has no shape yet"):
        select(nn.Sequential(nn.LazyLinear(3)))


def test_compiled_models_show_their_weights() -> None:
    images, labels = batch(shape=(6,))
    tables = []
    for compiled in (False, True):
        model = mlp()
        used = torch.compile(model, backend="eager") if compiled else model
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with probe(used, what=None if compiled else ["gradients", "updates"]) as flow:
            for _ in range(2):
                train_step(used, optimizer, images, labels)
        tables.append(flow.table())
    assert tables[0].names == tables[1].names and set(tables[1].kinds) == {WEIGHT_GRADIENT, UPDATE}
    np.testing.assert_allclose(tables[0].values, tables[1].values, rtol=1e-5)
    with pytest.raises(SpecError, match=r"what='activations': outputs inside a compiled model cannot be measured"):
        probe(torch.compile(mlp(), backend="eager"), what="activations")
    partly = mlp()
    partly[2] = torch.compile(partly[2], backend="eager")
    assert set(probe(partly).table().kinds) == {WEIGHT_GRADIENT, UPDATE}
    inside = mlp()
    inside.compile(backend="eager")
    assert set(probe(inside).table().kinds) == {WEIGHT_GRADIENT, UPDATE}


def test_a_model_compiled_while_it_is_probed_is_not_broken() -> None:
    images, labels = batch(shape=(6,))
    model, twin = mlp(), mlp()
    with probe(model) as flow:
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            train_step(compiled, optimizer, images, labels)
    for _ in range(2):
        train_step(twin, torch.optim.SGD(twin.parameters(), 0.1), images, labels)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert np.isfinite(flow.table().series(WEIGHT_GRADIENT)[1]).all()


def test_tables_survive_bytes_and_refuse_damage() -> None:
    model = build(comparative_plain(3), (1, 8, 8), 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with probe(model) as flow:
        for seed in range(3):
            train_step(model, optimizer, *batch(8, seed, (1, 8, 8)))
    table = flow.table()
    data = table.to_bytes()
    again = FlowTable.from_bytes(data)
    assert (again.names, again.kinds, again.blocks) == (table.names, table.kinds, table.blocks)
    assert len(again.blocks) == 3 and again.seconds == table.seconds > 0 and again.values.dtype == np.float32
    np.testing.assert_array_equal(again.values, table.values)
    np.testing.assert_array_equal(again.steps, table.steps)
    for damaged in (b"", b"hello", data[:-30], data[: len(data) // 2], data[:200] + b"\x00" * 40 + data[240:]):
        with pytest.raises(DataError, match="measure again") as caught:
            FlowTable.from_bytes(damaged)
        assert "\n" not in str(caught.value)


def test_frames_hold_what_was_measured() -> None:
    model = build(comparative_plain(3), (1, 8, 8), 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with probe(model, schedule=every(2)) as flow:
        for seed in range(3):
            train_step(model, optimizer, *batch(8, seed, (1, 8, 8)))
        frame = flow.frame()
    table = flow.table()
    assert list(frame.columns) == ["step", "kind", "layer", "depth", "block", "value"]
    assert len(frame) == np.isfinite(table.values).sum() and set(frame["step"]) == {0, 2}
    assert set(frame["kind"]) == set(KINDS) - {BRANCH}
    own = frame[(frame["kind"] == ACTIVATION_GRADIENT) & (frame["step"] == 2)]
    assert (
        own["depth"].tolist() == [1, 2, 3, 4]
        and own["block"].tolist()[:3] == [1, 2, 3]
        and own["block"].isna().sum() == 1
    )
    assert own["value"].tolist() == pytest.approx(table.series(ACTIVATION_GRADIENT)[1][1].tolist())
    weights = frame[(frame["kind"] == WEIGHT_GRADIENT) & (frame["step"] == 0)]
    assert weights["block"].tolist()[:6] == [1, 1, 2, 2, 3, 3]
    assert table.between(1, 3).steps.tolist() == [2]


def test_bad_arguments_are_one_line() -> None:
    for wrong, message in (
        (lambda: probe(mlp(), what="gradient"), "did you mean 'gradients'"),
        (lambda: probe(mlp(), what=[]), "what: empty"),
        (lambda: probe(mlp(), images=0), "images: 0 is too small"),
        (lambda: probe(mlp(), capacity=0), "capacity: 0 is too small"),
        (lambda: probe(mlp(), steps_per_epoch=0), "steps_per_epoch: 0 is too small"),
    ):
        with pytest.raises(SpecError, match=message):
            wrong()
    flow: Flow = probe(mlp())
    with flow, pytest.raises(SpecError, match="already active"):
        flow.__enter__()


def test_each_choice_measures_its_own_kinds() -> None:
    kinds = {
        "gradients": {WEIGHT_GRADIENT},
        "updates": {UPDATE},
        "activations": {MEAN, SECOND_MOMENT, ZEROS, DEAD, BRANCH},
        "activation-gradients": {ACTIVATION_GRADIENT},
    }
    assert set(kinds) == set(WHAT)
    for what, expected in kinds.items():
        model = build(cifar_resnet(8), SHAPE, 10)
        with probe(model, what=what) as flow:
            train_step(model, torch.optim.SGD(model.parameters(), 0.1), *batch(4))
        assert set(flow.table().kinds) == expected and np.isfinite(flow.table().values).all()


def test_tables_and_words_know_no_torch() -> None:
    code = "import sys, leadline.probes.table, leadline.probes.words; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False).returncode == 0
