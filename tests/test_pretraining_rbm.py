"""RBMs: against all states enumerated, autograd, numerical integrals, the exact Gibbs transition, and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

from leadline.errors import DataError, SpecError
from leadline.pretraining.exact import (
    annealed_log_partition,
    exact_gradient,
    log_likelihood,
    log_partition,
    model_expectations,
)
from leadline.pretraining.fitting import LayerEpoch, PretrainingDiverged, check_images, fit
from leadline.pretraining.rbm import RBM, ContrastiveDivergence, new_rbm, pseudo_log_likelihood, train_rbm
from leadline.specs.pretraining import PretrainingSpec, Visible

KINDS: tuple[Visible, ...] = ("bernoulli", "gaussian")


def machine(visible: int, hidden: int, kind: Visible = "bernoulli", seed: int = 0, scale: float = 1.0) -> RBM:
    random = torch.Generator().manual_seed(seed)
    tensors = [
        scale * torch.randn(shape, generator=random, dtype=torch.float64)
        for shape in ((hidden, visible), (visible,), (hidden,))
    ]
    return RBM(*tensors, visible=kind)


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)), dtype=torch.float64)


def images_for(rbm: RBM, count: int = 7, seed: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(count, len(rbm.visible_bias), generator=random, dtype=torch.float64)
    return values if rbm.visible == "gaussian" else (values > 0).double()


def energy(rbm: RBM, visible: Tensor, hidden: Tensor) -> Tensor:
    """The energy of each visible state (rows) with each hidden state (columns), as the definition has it."""
    interaction = visible @ rbm.weight.T @ hidden.T
    if rbm.visible == "gaussian":
        own = ((visible - rbm.visible_bias) ** 2).sum(1)[:, None] / 2
    else:
        own = -(visible @ rbm.visible_bias)[:, None]
    return own - interaction - hidden @ rbm.hidden_bias


def digits() -> Tensor:
    """Handwritten digits, 8x8, as 0 and 1."""
    return torch.from_numpy((load_digits().data > 7).astype(np.float32))


# --- closed forms


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(KINDS), st.integers(0, 99))
def test_free_energy_sums_over_all_hidden_states(visible: int, hidden: int, kind: Visible, seed: int) -> None:
    rbm = machine(visible, hidden, kind, seed)
    images = images_for(rbm)
    expected = -torch.logsumexp(-energy(rbm, images, states(hidden)), 1)
    torch.testing.assert_close(rbm.free_energy(images), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_bernoulli_partition_is_the_sum_over_all_states_of_both_sides(visible: int, hidden: int, seed: int) -> None:
    rbm = machine(visible, hidden, seed=seed)
    everything = -energy(rbm, states(visible), states(hidden)).flatten()
    assert float(log_partition(rbm)) == pytest.approx(float(torch.logsumexp(everything, 0)), rel=1e-12)
    assert float(log_likelihood(rbm, states(visible)).exp().sum()) == pytest.approx(1, rel=1e-10)


def test_gaussian_density_integrates_to_one() -> None:
    rbm = machine(2, 3, "gaussian", scale=0.8)

    axis = np.linspace(-12, 12, 241)
    grid = torch.from_numpy(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    values = log_likelihood(rbm, grid).exp().numpy().reshape(241, 241)
    assert integrate.simpson(integrate.simpson(values, x=axis), x=axis) == pytest.approx(1, rel=1e-6)


def test_more_states_than_one_chunk_holds() -> None:
    rbm = machine(16, 13, scale=0.3)
    by_visible = torch.logsumexp(-rbm.free_energy(states(16)), 0)
    assert float(log_partition(rbm)) == pytest.approx(float(by_visible), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(6, 4), (4, 6)])
def test_exact_gradient_is_that_of_autograd(kind: Visible, sizes: tuple[int, int]) -> None:
    rbm = machine(*sizes, kind)
    images = images_for(rbm)
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in rbm.parameters.items()}
    value = log_likelihood(RBM(**parameters, visible=kind), images).mean()
    expected = torch.autograd.grad(value, list(parameters.values()))
    for (_, found), wanted in zip(exact_gradient(rbm, images).items(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_annealing_estimates_the_exact_partition_function(kind: Visible) -> None:
    rbm = machine(12, 8, kind, scale=0.5)
    estimate = annealed_log_partition(rbm, chains=400, steps=300, seed=2)
    low, high = estimate.interval
    exact = float(log_partition(rbm))
    assert low < exact < high and high - low < 0.5
    assert estimate.log_partition == pytest.approx(exact, abs=0.2)
    again = annealed_log_partition(rbm, chains=400, steps=300, seed=2)
    assert estimate.log_partition == again.log_partition
    blunt = annealed_log_partition(rbm, chains=400, steps=2, seed=2)
    assert float(blunt.log_weights.std()) > 2 * float(estimate.log_weights.std())


def test_pseudo_likelihood_is_the_sum_of_conditionals() -> None:
    rbm = machine(5, 4)
    images = images_for(rbm)
    expected = torch.zeros(len(images), dtype=torch.float64)
    for unit in range(5):
        flipped = images.clone()
        flipped[:, unit] = 1 - flipped[:, unit]
        own, other = log_likelihood(rbm, images), log_likelihood(rbm, flipped)
        expected += own - torch.logaddexp(own, other)
    torch.testing.assert_close(pseudo_log_likelihood(rbm, images), expected)
    many = images.repeat(20_000, 1)
    drawn = pseudo_log_likelihood(rbm, many, seed=3).reshape(-1, len(images))
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert bool(((drawn.mean(0) - expected).abs() < 5 * error).all())


# --- contrastive divergence


def expected_divergence(rbm: RBM, images: Tensor, steps: int) -> dict[str, Tensor]:
    """What CD-k is in the mean, from the Gibbs transition between all visible states written out as a matrix."""
    all_visible, all_hidden = states(len(rbm.visible_bias)), states(len(rbm.hidden_bias))
    hidden = rbm.hidden_mean(all_visible)
    visible = rbm.visible_mean(all_hidden)
    to_hidden = (hidden[:, None] * all_hidden + (1 - hidden[:, None]) * (1 - all_hidden)).prod(2)
    to_visible = (visible[:, None] * all_visible + (1 - visible[:, None]) * (1 - all_visible)).prod(2)
    start = (images[:, None] == all_visible).all(2).double().mean(0)
    end = start @ torch.linalg.matrix_power(to_hidden @ to_visible, steps)
    difference = (start - end)[:, None]
    return {
        "weight": (hidden * difference).T @ all_visible,
        "visible_bias": (difference * all_visible).sum(0),
        "hidden_bias": (difference * hidden).sum(0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3])
def test_contrastive_divergence_is_right_in_the_mean(steps: int) -> None:
    rbm, batch = machine(4, 3), 50
    images = images_for(rbm, 5).repeat(batch // 5, 1)
    wanted = expected_divergence(rbm, images, steps)
    random = torch.Generator().manual_seed(0)
    estimate = ContrastiveDivergence(rbm, steps)
    found = [estimate(images, random)[0] for _ in range(2000)]
    for name, mean in wanted.items():
        values = torch.stack([each[name] for each in found])
        error = values.std(0) / math.sqrt(len(values))
        assert bool(((values.mean(0) - mean).abs() < 5 * error + 1e-9).all()), name


def test_contrastive_divergence_approaches_the_exact_gradient_as_steps_grow() -> None:
    rbm = machine(4, 3)
    images = images_for(rbm, 5)
    exact = exact_gradient(rbm, images)
    distances = [
        max(float((expected_divergence(rbm, images, steps)[name] - exact[name]).abs().max()) for name in exact)
        for steps in (1, 2, 4, 8, 64)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.01 and distances[-1] < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_persistent_chains_reach_the_model(kind: Visible) -> None:
    """With the parameters held fixed, they give the exact gradient, however far from the data the model is."""
    rbm = machine(4, 3, kind, scale=0.5)
    images = images_for(rbm, 1).repeat(500, 1)
    exact = exact_gradient(rbm, images)
    estimate, random = ContrastiveDivergence(rbm, 1, persistent=True), torch.Generator().manual_seed(1)
    first = estimate(images, random)[0]
    for _ in range(50):
        estimate(images, random)
    found = [estimate(images, random)[0] for _ in range(1000)]
    for name, wanted in exact.items():
        mean = torch.stack([each[name] for each in found]).mean(0)
        assert float((mean - wanted).abs().max()) < 0.02, name
    assert max(float((first[name] - exact[name]).abs().max()) for name in exact) > 0.05


def test_persistent_chains_outlive_a_smaller_batch() -> None:
    rbm = machine(4, 3)
    images, random = images_for(rbm, 6), torch.Generator().manual_seed(0)
    estimate = ContrastiveDivergence(rbm, persistent=True)
    estimate(images[:2], random)
    estimate(images, random)
    assert estimate.chains is not None
    kept = estimate.chains.clone()
    estimate(images[:3], random)
    assert len(estimate.chains) == 6
    torch.testing.assert_close(estimate.chains[3:], kept[3:])


def test_gaussian_units_are_drawn_around_their_mean_with_variance_one() -> None:
    rbm = machine(3, 2, "gaussian")
    hidden = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(100_000, 1)
    drawn = rbm.draw_visible(rbm.visible_input(hidden), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), rbm.visible_bias + rbm.weight[0], atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.ones(3, dtype=torch.float64), atol=0.03, rtol=0)


# --- training


def epochs_of(rbm: RBM, images: Tensor, spec: PretrainingSpec, **more: object) -> list[LayerEpoch]:
    return list(train_rbm(rbm, images, spec, **more))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_likelihood_is_that_of_scikit_learn_at_equal_epochs(persistent: bool) -> None:
    """16 hidden units on binary digits, exactly normalised; scikit-learn's is persistent CD-1."""
    images = digits()
    peer = BernoulliRBM(16, learning_rate=0.05, batch_size=50, n_iter=30, random_state=0).fit(images.numpy())
    learned = (peer.components_, peer.intercept_visible_, peer.intercept_hidden_)
    theirs = RBM(*(torch.from_numpy(np.asarray(each)).double() for each in learned))
    np.testing.assert_allclose(theirs.free_energy(images.double()).numpy(), peer._free_energy(images.numpy()), 1e-4)

    start = new_rbm(images, 16, seed=1)
    alone = float(log_likelihood(start, images).mean())  # all but the model of independent pixels
    rbm = RBM(start.weight, torch.zeros(64), torch.zeros(16))
    spec = PretrainingSpec(
        epochs=30, learning_rate=0.05, batch_size=50, momentum=0.0, weight_decay=0.0, persistent=persistent
    )
    epochs_of(rbm, images, spec)
    ours, peers = (float(log_likelihood(each, images).mean()) for each in (rbm, theirs))
    assert peers > alone + 2
    assert ours > peers - 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_raises_the_exact_likelihood(kind: Visible) -> None:
    images = digits()
    if kind == "gaussian":
        images = (images - images.mean()) / images.std()
    rbm = new_rbm(images, 10, kind)
    before = float(log_likelihood(rbm, images).mean())
    rate = {"gaussian_learning_rate": 0.01} if kind == "gaussian" else {}
    spec = PretrainingSpec(epochs=10, batch_size=50, visible=kind, **rate)
    found = epochs_of(rbm, images, spec, held_out=images[-100:])
    assert float(log_likelihood(rbm, images).mean()) > before + 1.5
    errors = [each.reconstruction_error for each in found]
    assert errors[-1] < 0.9 * errors[0] and float(rbm.reconstruction_error(images)) < errors[0]
    held, seen = rbm.free_energy(images[-100:]).mean(), rbm.free_energy(images[:1000]).mean()
    assert found[-1].free_energy_gap == pytest.approx(float(held - seen), abs=1e-3)
    assert [(each.epoch, each.step) for each in found] == [(n, 36 * n) for n in range(1, 11)]


def test_a_new_machine_has_the_mean_of_the_images() -> None:
    images = digits()
    rbm = new_rbm(images, 12)
    rbm.weight.zero_()
    wanted = (images.sum(0) + 1) / (len(images) + 2)
    torch.testing.assert_close(rbm.visible_mean(torch.zeros(1, 12))[0], wanted)


def test_steps_have_momentum_and_weights_alone_decay() -> None:
    weight, bias = torch.full((1, 1), 2.0), torch.full((1,), 2.0)

    def one(_images: Tensor, _random: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        return {"weight": torch.ones(1, 1), "bias": torch.ones(1)}, torch.tensor(0.1)

    spec = PretrainingSpec(epochs=1, learning_rate=0.5, batch_size=1, momentum=0.5, weight_decay=0.25)
    list(fit({"weight": weight, "bias": bias}, one, torch.ones(2, 3), "bernoulli", spec))
    first = 2 + 0.5 * (1 - 0.25 * 2)
    second = first + 0.5 * (first - 2) + 0.5 * (1 - 0.25 * first)
    assert weight.item() == pytest.approx(second) and bias.item() == pytest.approx(2.5 + 0.25 + 0.5)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(persistent: bool) -> None:
    images = digits()[:230]
    state = torch.get_rng_state()

    def trained(seed: int, epochs: int) -> tuple[RBM, list[LayerEpoch]]:
        rbm = new_rbm(images, 9, seed=seed)
        return rbm, epochs_of(rbm, images, PretrainingSpec(epochs=epochs, persistent=persistent), seed=seed)

    (first, long), (again, _), (other, _) = trained(5, 2), trained(5, 2), trained(6, 2)
    torch.testing.assert_close(first.weight, again.weight, rtol=0, atol=0)
    assert not torch.equal(first.weight, other.weight)
    _, short = trained(5, 1)
    assert short[0].reconstruction_error == long[0].reconstruction_error
    assert torch.equal(torch.get_rng_state(), state)


# --- what is refused


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.tensor([[0.0, 255.0]]), r"values from 0 to 255; Bernoulli units take values in \[0, 1\]"),
        (torch.tensor([[0.0, -0.5]]), "from -0.5 to 0"),
        (torch.tensor([[0.0, float("nan")]]), "NaN or infinite"),
        (torch.zeros(2, 1, 4, 4), r"shape \(2, 1, 4, 4\)"),
        (torch.zeros(0, 4), r"shape \(0, 4\)"),
        (torch.zeros(3, 2, dtype=torch.uint8), "torch.uint8; expected real numbers"),
    ],
)
def test_images_that_are_none_are_refused_in_one_line(images: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check_images(images, "bernoulli")
    assert "\n" not in str(caught.value)


def test_images_outside_zero_and_one_are_refused_by_whatever_takes_bernoulli_images() -> None:
    images, rbm = torch.full((4, 2), 1.5, dtype=torch.float64), machine(2, 3)
    for refused in (
        lambda: new_rbm(images, 3),
        lambda: next(train_rbm(rbm, images, PretrainingSpec())),
        lambda: next(train_rbm(rbm, images / 2, PretrainingSpec(), held_out=images)),
        lambda: log_likelihood(rbm, images),
        lambda: exact_gradient(rbm, images),
    ):
        with pytest.raises(DataError, match=r"Bernoulli units take values in \[0, 1\]"):
            refused()
    assert new_rbm(images, 3, "gaussian").visible == "gaussian"


def test_what_cannot_be_computed_is_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match=r"30 visible \(bernoulli\) and 23 hidden units needs 2\^23 states; .* 22 "):
        log_partition(machine(30, 23))
    with pytest.raises(SpecError, match=r"2 visible \(gaussian\) and 30 hidden units needs 2\^30"):
        model_expectations(machine(2, 30, "gaussian"))
    with pytest.raises(SpecError, match="Bernoulli visible units; this RBM's are gaussian"):
        pseudo_log_likelihood(machine(2, 2, "gaussian"), torch.zeros(1, 2).double())
    with pytest.raises(DataError, match="other values than 0 and 1"):
        pseudo_log_likelihood(machine(2, 2), torch.full((1, 2), 0.5).double())
    with pytest.raises(SpecError, match="images of 3 values for an RBM of 2 visible units"):
        next(train_rbm(machine(2, 2), torch.zeros(4, 3).double(), PretrainingSpec()))
    with pytest.raises(SpecError, match="0 hidden units"):
        new_rbm(torch.zeros(2, 2), 0)
    with pytest.raises(SpecError, match="of 0 steps"):
        ContrastiveDivergence(machine(2, 2), 0)
    with pytest.raises(SpecError, match="1 chains of 5 steps"):
        annealed_log_partition(machine(2, 2), 1, 5)


def test_divergence_is_one_line_with_epoch_and_step() -> None:
    images = 3 * torch.randn(300, 20, generator=torch.Generator().manual_seed(0))
    spec = PretrainingSpec(visible="gaussian", gaussian_learning_rate=5.0)
    with pytest.raises(
        PretrainingDiverged, match=r"layer 3 diverged in epoch 1 at step \d: .* learning rate of 5"
    ) as e:
        epochs_of(new_rbm(images, 5, "gaussian"), images, spec, layer=3)
    assert (e.value.layer, e.value.epoch) == (3, 1) and "\n" not in str(e.value)
    binary = digits()
    with pytest.raises(PretrainingDiverged, match="layer 1 diverged in epoch 1 at step"):
        epochs_of(new_rbm(binary, 5), binary, PretrainingSpec(learning_rate=1e4))


def test_divergence_is_placed_at_the_step_that_went_wrong() -> None:
    calls = itertools.count(1)

    def fails(_images: Tensor, _random: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        return {"weight": torch.zeros(1, 1)}, torch.tensor(math.nan if next(calls) == 8 else 0.1)

    weight = {"weight": torch.ones(1, 1)}
    with pytest.raises(PretrainingDiverged, match="error was nan") as caught:
        list(fit(weight, fails, torch.ones(5, 2), "bernoulli", PretrainingSpec(batch_size=1)))
    assert (caught.value.epoch, caught.value.step) == (2, 8)

    def last(_images: Tensor, _random: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        return {"weight": torch.full((1, 1), math.inf)}, torch.tensor(0.1)

    with pytest.raises(PretrainingDiverged, match="epoch 1 at step 1"):
        list(fit({"weight": torch.ones(1, 1)}, last, torch.ones(5, 2), "bernoulli", PretrainingSpec()))


def test_an_epochs_error_is_the_mean_over_images_whatever_the_last_batch() -> None:
    images = torch.tensor([[0.0], [0.0], [1.0]])
    for seed in range(4):  # the image that is unlike the others is in the first batch or alone in the last
        (epoch,) = fit(
            {}, lambda batch, _: ({}, batch.mean()), images, "bernoulli", PretrainingSpec(epochs=1, batch_size=2), seed
        )
        assert epoch.reconstruction_error == pytest.approx(1 / 3)


def test_the_annealed_interval_is_three_standard_errors_of_the_mean_weight() -> None:
    found = annealed_log_partition(machine(6, 4), chains=400, steps=20)
    weights = np.exp(found.log_weights.numpy())
    error = 3 * weights.std(ddof=1) / math.sqrt(400)
    assert found.interval == pytest.approx((math.log(weights.mean() - error), math.log(weights.mean() + error)))
