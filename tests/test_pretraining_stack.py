"""Stacks of RBMs and auto-encoders, the specification, and grids of images: autograd, exact means, forward passes."""

import dataclasses
import io
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import vl_convert
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from leadline.errors import DataError, SpecError
from leadline.parts.base import parse
from leadline.pretraining.autoencoder import Denoising, new_autoencoder, train_autoencoder
from leadline.pretraining.dbn import DBN
from leadline.pretraining.exact import model_expectations
from leadline.pretraining.fitting import LayerEpoch, PretrainingDiverged, draw_bernoulli
from leadline.pretraining.image_grids import filters, grid, samples
from leadline.pretraining.rbm import RBM, new_rbm
from leadline.pretraining.stack import pretrain, train_layers
from leadline.pretraining.state import PretrainingState
from leadline.specs.pretraining import PretrainingSpec, Visible

METHODS = ("rbm", "denoising-autoencoder")


def digits(count: int = 1797) -> Tensor:
    return torch.from_numpy((load_digits().data[:count] / 16).astype(np.float32))


def linears(*widths: int, seed: int = 0) -> list[nn.Linear]:
    """Linear layers as the old initialisation has them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [nn.Linear(*pair) for pair in itertools.pairwise(widths)]


def spec_of(method: str, **fields: object) -> PretrainingSpec:
    return PretrainingSpec.model_validate({"method": method, "epochs": 2, **fields})


# --- denoising auto-encoders


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_denoising_direction_is_minus_the_gradient_of_autograd(tied: bool, visible: Visible) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(9, 6, generator=random, dtype=torch.float64)
    machine = new_autoencoder(images, 4, visible, tied)
    for tensor in machine.parameters.values():
        tensor.add_(torch.randn(tensor.shape, generator=random, dtype=torch.float64), alpha=0.3)
    direction, error = Denoising(machine, 0.4)(images, torch.Generator().manual_seed(1))

    mask = draw_bernoulli(torch.full_like(images, 0.6), torch.Generator().manual_seed(1))
    p = {name: tensor.clone().requires_grad_() for name, tensor in machine.parameters.items()}
    code = torch.sigmoid((images * mask) @ p["weight"].T + p["hidden_bias"])
    output = code @ p.get("decoder", p["weight"]) + p["visible_bias"]
    if visible == "gaussian":
        loss = ((output - images) ** 2).sum(1).mean() / 2
    else:
        loss = F.binary_cross_entropy(torch.sigmoid(output), images, reduction="sum") / 9
    for (name, found), wanted in zip(direction.items(), torch.autograd.grad(loss, list(p.values())), strict=True):
        torch.testing.assert_close(found, -wanted, msg=name)
    assert float(error) == pytest.approx(float(loss.detach()) / 6)


def test_corruption_sets_its_fraction_to_zero() -> None:
    kept = draw_bernoulli(torch.full((400, 500), 0.7), torch.Generator().manual_seed(0))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / 200_000))


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_an_autoencoder_learns_to_undo_the_noise(tied: bool) -> None:
    images = digits()
    machine = new_autoencoder(images, 32, tied=tied)
    spec = spec_of("denoising-autoencoder", epochs=12, tied=tied, batch_size=50)
    found = list(train_autoencoder(machine, images, spec))
    assert found[-1].reconstruction_error < 0.8 * found[0].reconstruction_error
    mean = images.mean(0).clamp(1e-3, 1 - 1e-3).expand_as(images)
    assert found[-1].reconstruction_error < float(F.binary_cross_entropy(mean, images))
    mask = draw_bernoulli(torch.full_like(images, 0.7), torch.Generator().manual_seed(9))
    repaired = machine.visible_mean(machine.hidden_mean(images * mask))
    assert float(F.mse_loss(repaired, images)) < 0.6 * float(F.mse_loss(images * mask, images))
    if machine.decoder is not None:
        assert not torch.equal(machine.decoder, machine.weight)


# --- stacks


@pytest.mark.parametrize("method", METHODS)
def test_layers_are_filled_with_what_the_machines_learned(method: str) -> None:
    layers, images, told = linears(64, 20, 15, 10), digits(400), list[LayerEpoch]()
    places = [layer.weight.data_ptr() for layer in layers]
    result = pretrain(layers, "sigmoid", images, spec_of(method), 3, told.append, digits()[400:500])
    assert [(each.layer, each.epoch, each.step) for each in told] == [
        (layer, epoch, 4 * epoch) for layer in (1, 2, 3) for epoch in (1, 2)
    ]
    assert result.epochs == tuple(told) and result.seconds == sum(each.seconds for each in told)
    for layer, machine, place in zip(layers, result.machines, places, strict=True):
        assert torch.equal(layer.weight, machine.weight) and torch.equal(layer.bias, machine.hidden_bias)
        assert layer.weight.data_ptr() == place and layer.weight.requires_grad
        assert layer.weight.data_ptr() != machine.weight.data_ptr()
        assert len(machine.visible_bias) == layer.in_features
    names = {record.name for record in result.records()}
    assert names == {"reconstruction_error", "seconds"} | ({"free_energy_gap"} if method == "rbm" else set())
    assert {record.split for record in result.records()} == {f"pretraining-{n}" for n in (1, 2, 3)}
    frame = result.frame()
    assert list(frame.columns) == ["layer", "epoch", "step", "quantity", "value"]
    assert len(frame) == len(result.records()) == 6 * len(names)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_bits_and_depth_leaves_the_layers_below_alone(method: str) -> None:
    images, state = digits(250), torch.get_rng_state()

    def trained(seed: int, *widths: int, start: int = 0) -> list[Tensor]:
        layers = linears(64, *widths, seed=start)
        pretrain(layers, "sigmoid", images, spec_of(method), seed)
        return [layer.weight.detach().clone() for layer in layers]

    deep = trained(1, 12, 11, 10)
    assert all(torch.equal(a, b) for a, b in zip(deep, trained(1, 12, 11, 10, start=5), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(deep, trained(1, 12, 11), strict=False))
    assert not any(torch.equal(a, b) for a, b in zip(deep, trained(2, 12, 11, 10), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


GOING_ON = {
    "momentum": {"method": "rbm", "momentum": 0.9},
    "chains": {"method": "rbm", "persistent": True},
    "gaussian": {"method": "rbm", "visible": "gaussian"},
    "tied": {"method": "denoising-autoencoder"},
    "untied": {"method": "denoising-autoencoder", "tied": False, "visible": "gaussian"},
}


@pytest.mark.parametrize("fields", GOING_ON.values(), ids=list(GOING_ON))
def test_it_goes_on_after_any_epoch_to_the_same_bits(fields: dict[str, object]) -> None:
    """120 images in batches of 50: the last moves a part of the persistent chains."""
    spec, images, held_out = (
        PretrainingSpec.model_validate({"epochs": 3, "batch_size": 50, **fields}),
        digits(120),
        None,
    )
    if spec.method == "rbm":
        held_out = digits(160)[120:]
    whole_layers, whole = linears(64, 12, 10), PretrainingState(spec)
    seen = [whole.tensors()]
    for _ in train_layers(whole, whole_layers, "sigmoid", images, 4, held_out):
        seen.append({name: tensor.clone() for name, tensor in whole.tensors().items()})
    measured = [dataclasses.replace(each, seconds=0.0) for each in whole.epochs]
    assert len(seen) == 7 and whole.steps == 18
    for done, tensors in enumerate(seen):
        layers, state = linears(64, 12, 10, seed=7), PretrainingState(spec)
        state.load(tensors, torch.device("cpu"))
        before = state.epochs[:]
        assert before == whole.epochs[:done] and state.steps == 3 * done
        assert (len(state.machines), state.layer.epochs) == [(0, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)][
            done
        ]
        assert state.tensors().keys() == tensors.keys()
        later = list(train_layers(state, layers, "sigmoid", images, 4, held_out))
        assert state.epochs == before + later
        assert [dataclasses.replace(each, seconds=0.0) for each in state.epochs] == measured
        for ours, theirs in zip(layers, whole_layers, strict=True):
            assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
        for one, other in zip(state.machines, whole.machines, strict=True):
            assert one.visible == other.visible and one.parameters.keys() == other.parameters.keys()
            assert all(torch.equal(one.parameters[name], other.parameters[name]) for name in one.parameters)
    if spec.persistent:
        assert seen[1]["chains"].shape == (50, 12) and not torch.equal(seen[1]["chains"], seen[2]["chains"])
        lost = PretrainingState(spec)
        lost.load({name: tensor for name, tensor in seen[1].items() if name != "chains"}, torch.device("cpu"))
        for _ in train_layers(lost, layers, "sigmoid", images, 4, held_out):
            pass
        assert not torch.equal(layers[0].weight, whole_layers[0].weight)  # so they must be kept


def test_a_state_of_other_layers_is_refused() -> None:
    state, images = PretrainingState(spec_of("rbm")), digits(60)
    next(train_layers(state, linears(64, 12, 10), "sigmoid", images))
    for widths in ((64, 11), (64, 11, 12)):
        with pytest.raises(SpecError, match=r"layers \[\(12, 64\)\] cannot be resumed with layers \[\(11, 64\)"):
            next(train_layers(state, linears(*widths), "sigmoid", images))


def test_a_gaussian_first_layer_has_a_rate_of_its_own() -> None:
    images = digits(300)
    images = (images - images.mean()) / images.std()
    layers = linears(64, 12, 8)
    result = pretrain(layers, "sigmoid", images, spec_of("rbm", visible="gaussian", epochs=3))
    assert [machine.visible for machine in result.machines] == ["gaussian", "bernoulli"]
    coder = pretrain(layers, "sigmoid", images, spec_of("denoising-autoencoder", visible="gaussian", epochs=3))
    for each in (result, coder):
        first = [epoch.reconstruction_error for epoch in each.epochs if epoch.layer == 1]
        assert first[-1] < first[0]


@pytest.mark.slow
def test_a_pretrained_network_trains_where_the_old_initialisation_does_not() -> None:
    """Four sigmoid layers on digits, fine-tuned by the same steps."""
    images, labels = digits(), torch.from_numpy(load_digits().target)
    right = {}
    for kind in ("old", *METHODS):
        layers = linears(64, 40, 40, 40, 40)
        if kind != "old":
            pretrain(layers, "sigmoid", images, spec_of(kind, epochs=5, batch_size=20, learning_rate=0.3))
        (head,) = linears(40, 10)
        network = nn.Sequential(*(part for layer in layers for part in (layer, nn.Sigmoid())), head)
        optimizer = torch.optim.SGD(network.parameters(), 0.3, momentum=0.9)
        for step in range(300):
            rows = torch.arange(step * 64, step * 64 + 64) % len(images)
            optimizer.zero_grad()
            F.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimizer.step()
        right[kind] = float((network(images).argmax(1) == labels).float().mean())
    assert right["old"] < 0.2
    assert right["rbm"] > 0.8 and right["denoising-autoencoder"] > 0.8, right


# --- deep belief networks


def belief_network() -> DBN:
    layers = linears(64, 20, 15)
    return pretrain(layers, "sigmoid", digits(300), spec_of("rbm")).dbn()


def test_the_network_of_a_belief_network_gives_its_mean_field_pass() -> None:
    dbn, images, state = belief_network(), digits(5), torch.get_rng_state()
    network = dbn.network(10, seed=4)
    assert [type(part).__name__ for part in network] == ["Linear", "Sigmoid", "Linear", "Sigmoid", "Linear"]
    torch.testing.assert_close(network[:4](images), dbn.up(images))
    assert network(images).shape == (5, 10) and float(network[4].bias.detach().abs().max()) == 0
    assert torch.equal(network[4].weight, dbn.network(10, seed=4)[4].weight)
    assert all(parameter.requires_grad for parameter in network.parameters())
    network[0].weight.data.zero_()
    assert float(dbn.machines[0].weight.abs().max()) > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_of_a_single_machine_have_its_exact_mean() -> None:
    random = torch.Generator().manual_seed(0)
    rbm = RBM(*(torch.randn(shape, generator=random) for shape in ((3, 5), (5,), (3,))))
    found = DBN((rbm,)).sample(20_000, steps=60, seed=1)
    wanted = model_expectations(rbm)["visible_bias"].float()
    torch.testing.assert_close(found.mean(0), wanted, atol=0.02, rtol=0)


def test_samples_of_a_stack_go_down_from_the_top_machine() -> None:
    """p(v) = sum over h of p_top(h) p(v | h): the mean of the lowest units, over all states of the middle ones."""
    random = torch.Generator().manual_seed(3)
    low, top = (RBM(*(torch.randn(shape, generator=random) for shape in ((4, n), (n,), (4,)))) for n in (5, 4))
    states = torch.tensor([[(number >> place) & 1 for place in range(4)] for number in range(16)]).float()
    weights = torch.softmax(-top.free_energy(states), 0)
    wanted = (weights[:, None] * low.visible_mean(states)).sum(0)
    found = DBN((low, top)).sample(20_000, steps=60, seed=2)
    torch.testing.assert_close(found.mean(0), wanted, atol=0.02, rtol=0)


def test_samples_are_those_of_their_seed_and_may_start_from_images() -> None:
    dbn = belief_network()
    first, again, other = (dbn.sample(6, 5, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (6, 64) and float(first.min()) >= 0 and float(first.max()) <= 1
    images = digits(6)
    near = dbn.sample(6, 1, 1, images)
    assert float(F.mse_loss(near, images)) < float(F.mse_loss(near, images.flip(0)))
    for arguments in ((0, 5), (3, 0), (5, 1, 1, images)):
        with pytest.raises(SpecError, match="expected at least 1 of each"):
            dbn.sample(*arguments)


def test_machines_that_do_not_fit_are_refused_in_one_line() -> None:
    low, top = new_rbm(digits(9), 7), new_rbm(digits(9)[:, :8], 3)
    with pytest.raises(SpecError, match=r"RBM 2 .* 8 visible units \(bernoulli\); expected 7 \(bernoulli\)"):
        DBN((low, top))
    with pytest.raises(SpecError, match=r"RBM 2 .*\(gaussian\)"):
        DBN((low, new_rbm(digits(9)[:, :7], 3, "gaussian")))
    with pytest.raises(SpecError, match="without RBMs"):
        DBN(())
    with pytest.raises(SpecError, match="0 classes"):
        DBN((low,)).network(0)
    coder = pretrain(linears(64, 5), "sigmoid", digits(20), spec_of("denoising-autoencoder"))
    with pytest.raises(SpecError, match="denoising-autoencoder do not form a deep belief network; use method rbm"):
        coder.dbn()


# --- what is refused


def test_layers_that_cannot_be_pretrained_are_refused_and_left_alone() -> None:
    images, spec = digits(50), spec_of("rbm")
    layers = linears(64, 9, 7)
    before = [layer.weight.detach().clone() for layer in layers]
    with pytest.raises(SpecError, match=r"needs activation sigmoid, .* got relu"):
        pretrain(layers, "relu", images, spec)
    with pytest.raises(SpecError, match="without hidden linear layers"):
        pretrain([], "sigmoid", images, spec)
    with pytest.raises(SpecError, match=r"layer 2 .* takes 9 values and would get 7"):
        pretrain([*linears(64, 7), layers[1]], "sigmoid", images, spec)
    with pytest.raises(SpecError, match=r"layer 1 .* takes 8 values and would get 64"):
        pretrain(linears(8, 9), "sigmoid", images, spec)
    with pytest.raises(SpecError, match=r"layer 1 .* has no bias"):
        pretrain([nn.Linear(64, 7, bias=False)], "sigmoid", images, spec)
    with pytest.raises(DataError, match=r"values from 0 to 255; .* \[0, 1\]"):
        pretrain(layers, "sigmoid", images * 255, spec)
    with pytest.raises(DataError, match="Bernoulli"):
        pretrain(layers, "sigmoid", images, spec, held_out=images - 1)
    with pytest.raises(SpecError, match="held-out images of 63 values"):
        pretrain(layers, "sigmoid", images, spec, held_out=images[:, 1:])
    with pytest.raises(PretrainingDiverged, match="layer 1 diverged in epoch 1 at step"):
        pretrain(layers, "sigmoid", digits(), spec_of("rbm", learning_rate=1e5))
    with pytest.raises(PretrainingDiverged, match="layer 1 diverged in epoch 1 at step"):
        pretrain(layers, "sigmoid", digits(), spec_of("denoising-autoencoder", learning_rate=1e5))
    assert all(torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "dbm"}, "method"),
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"cd_steps": 0}, "cd_steps"),
        ({"visible": "relu"}, "visible"),
        ({"method": "denoising-autoencoder", "corruption": 1.0}, "corruption"),
        ({"corruption": 0.1}, "corruption 0.1 has no effect with method rbm; remove it"),
        ({"method": "denoising-autoencoder", "cd_steps": 2}, "cd_steps 2 has no effect with method denoising"),
        ({"method": "denoising-autoencoder", "persistent": True}, "persistent True has no effect"),
        ({"gaussian_learning_rate": 0.1}, "gaussian_learning_rate 0.1 has no effect with visible bernoulli"),
        ({"layers": 3}, "unknown key 'layers'"),
    ],
)
def test_an_impossible_specification_is_refused_in_one_line(fields: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(PretrainingSpec, fields)
    assert "\n" not in str(caught.value)


def test_a_specification_round_trips_and_its_hash_knows_only_what_counts() -> None:
    for fields in ({}, {"method": "denoising-autoencoder", "tied": False}, {"visible": "gaussian", "cd_steps": 3}):
        spec = parse(PretrainingSpec, fields)
        again = parse(PretrainingSpec, spec.model_dump(mode="json"))
        assert again == spec and again.content_hash == spec.content_hash
    assert "corruption" not in PretrainingSpec().model_dump()
    assert PretrainingSpec().with_(method="denoising-autoencoder").method == "denoising-autoencoder"
    hashes = {PretrainingSpec().with_(**each).content_hash for each in ({}, {"cd_steps": 2}, {"persistent": True})}
    assert len(hashes) == 3


# --- grids


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_filters_are_laid_out_in_rows_each_on_its_own_scale() -> None:
    weight = np.arange(5 * 6, dtype=np.float64).reshape(5, 6) - 12
    weight[3] = 0
    grid = filters(weight, (1, 2, 3), columns=2)
    pixels = opened(grid.png)
    assert pixels.shape == (grid.height, grid.width) == (3 * 3 - 1, 2 * 4 - 1)
    assert (pixels[2] == 255).all() and (pixels[:, 3] == 255).all() and (pixels[6:, 4:] == 255).all()
    assert pixels[0, 0] == 0 and pixels[7, 2] == 255  # minus and plus the greatest weight of units 0 and 4
    zero = pixels[3:5, 4:7]
    assert len(set(zero.flatten())) == 1 and abs(int(zero[0, 0]) - 127) <= 3


def test_colours_and_greys_come_back_as_they_were() -> None:
    values = np.random.default_rng(0).random((3, 3 * 4 * 5))
    pixels = opened(samples(values, (3, 4, 5), columns=3).png)
    assert pixels.shape == (4, 17, 3)
    for number in range(3):
        wanted = values[number].reshape(3, 4, 5).transpose(1, 2, 0)
        assert np.abs(pixels[:, 6 * number : 6 * number + 5] / 255 - wanted).max() < 1 / 60
    normal = np.array([[-9.0, 0.0, 9.0]])
    pixels = opened(samples(normal, (1, 1, 3), standardised=True).png)
    assert list(pixels[0, [0, 2]]) == [0, 255] and abs(int(pixels[0, 1]) - 127) <= 3


def test_of_many_filters_some_are_shown_evenly_over_all() -> None:
    weight = np.full((1000, 1), -1.0)
    weight[[0, 999]] = 1
    grid = filters(weight, (1, 1, 1), columns=4, rows=2)
    pixels = opened(grid.png)[::2, ::2]
    assert pixels[0, 0] == pixels[1, 3] == 255 and (pixels.flatten()[1:-1] == 0).all()


def test_a_page_can_hold_the_grid() -> None:
    made = grid(np.zeros((2, 1, 3, 3)), 2)
    assert made.data_uri.startswith("data:image/png;base64,iVBOR")
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="7" height="3"><image href="{made.data_uri}"/></svg>'
    assert opened(vl_convert.svg_to_png(svg)).shape[:2] == (3, 7)


def test_arrays_that_are_no_pictures_are_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"weights of shape \(4, 5\) as images of 1x2x3; expected one row of 6"):
        filters(np.zeros((4, 5)), (1, 2, 3))
    with pytest.raises(DataError, match="in 1 or 3 channels"):
        filters(np.zeros((4, 8)), (2, 2, 2))
    with pytest.raises(DataError, match="NaN"):
        filters(np.full((1, 4), np.nan), (1, 2, 2))
    with pytest.raises(DataError, match="from 0 to 2; expected values in"):
        samples(np.array([[0.0, 2.0]]), (1, 1, 2))
    with pytest.raises(DataError, match=r"shape \(0, 4\)"):
        samples(np.zeros((0, 4)), (1, 2, 2))
