"""Probes by name: every one measures networks as they are, leaves them to the bit, and is stored and read back."""

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from leadline.errors import DataError, LeadlineError
from leadline.networks import cifar_plain, cifar_resnet
from leadline.networks.modules import build
from leadline.probes.measured import Measurement
from leadline.probes.running import has_batch_normalisation, run_probe
from leadline.probes.snapshots import PROBES, find_probe

IMAGES = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 10


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROBES.members() if name not in ("hessian", "noise")])
@pytest.mark.parametrize("untrained", [True, False])
def test_a_network_is_left_as_it_was_and_the_same_seed_gives_the_same(name: str, untrained: bool) -> None:
    model = build(cifar_resnet(8), (1, 8, 8), 10, 0).train()
    model(IMAGES).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    before, random = bits(model), torch.get_rng_state()
    one = run_probe(find_probe(name), model, IMAGES[:4], LABELS[:4], seed=3, untrained=untrained)
    assert one.reason == "" and len(one.frame) and one.images == 4 and one.seconds > 0
    assert one.batch_statistics == (untrained and name != "lesion")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in bits(model).items())
    after = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and torch.equal(grad, old) for grad, old in zip(after, gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    again = run_probe(find_probe(name), model, IMAGES[:4], LABELS[:4], seed=3, untrained=untrained)
    pd.testing.assert_frame_equal(again.frame, one.frame, check_exact=True)


def test_batch_statistics_before_the_first_step_are_those_that_the_probe_itself_takes() -> None:
    model = build(cifar_plain(8), (1, 8, 8), 10, 0)
    seen = run_probe(find_probe("cka"), model, IMAGES, LABELS, seed=0, untrained=True).frame
    own = find_probe("cka").measure(model, IMAGES, LABELS, batch_statistics=True)
    running = find_probe("cka").measure(model, IMAGES, LABELS)
    assert seen["cka"].equals(own["cka"]) and not seen["cka"].equals(running["cka"])


def test_networks_without_batch_normalisation_have_no_batch_statistics() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.GroupNorm(4, 16), nn.ReLU(), nn.Linear(16, 10))
    assert not has_batch_normalisation(model) and has_batch_normalisation(nn.Sequential(nn.BatchNorm2d(1)))
    assert not run_probe(find_probe("noise"), model, IMAGES, LABELS, seed=0, untrained=True).batch_statistics


@pytest.mark.parametrize("name", ["lesion", *(name for name, probe in PROBES.members().items() if probe.measures_loss)])
def test_numbers_as_targets_are_not_taken_for_probabilities(name: str) -> None:
    model = build(cifar_resnet(8), (1, 8, 8), 10, 0)
    images, targets = IMAGES.repeat(4, 1, 1, 1), torch.full((64, 10), 0.5)
    found = run_probe(find_probe(name), model, images, targets, seed=0, untrained=False)
    assert found.frame.empty
    assert "10): this measures the cross-entropy of class labels" in found.reason


class Failing(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise ValueError("not\ntoday")


def test_what_goes_wrong_is_a_reason_in_one_line_and_no_error() -> None:
    plain = build(cifar_plain(8), (1, 8, 8), 10, 0)
    none = run_probe(find_probe("paths"), plain, IMAGES, LABELS, seed=0, untrained=False)
    assert none.frame.empty and none.reason.startswith("no block has a shortcut")
    few = run_probe(find_probe("cka"), plain, IMAGES[:2], LABELS[:2], seed=0, untrained=False)
    assert "2 images" in few.reason
    assert (
        run_probe(find_probe("landscape"), Failing(), IMAGES, LABELS, seed=0, untrained=True).reason
        == "ValueError: not today"
    )
    share = run_probe(find_probe("decomposition"), plain, IMAGES, LABELS, seed=0, untrained=False)
    assert share.reason == "" and set(share.frame.query("quantity == 'share'")["value"]) == {0.0}
    with pytest.raises(LeadlineError):
        find_probe("paths").measure(plain, IMAGES, LABELS)


@pytest.mark.parametrize("name", ["lesion", "shattered"])
def test_bytes_hold_the_frame_exactly(name: str) -> None:
    one = run_probe(
        find_probe(name), build(cifar_plain(8), (1, 8, 8), 10, 0), IMAGES[:4], LABELS[:4], seed=0, untrained=False
    )
    again = Measurement.from_bytes(one.to_bytes())
    pd.testing.assert_frame_equal(again.frame, one.frame, check_exact=True)
    same = (again.images, again.seconds, again.batch_statistics, again.reason)
    assert same == (one.images, one.seconds, one.batch_statistics, one.reason)


def test_bytes_hold_hostile_text_numbers_that_are_none_and_nothing() -> None:
    frame = pd.DataFrame(
        {"a b": [float("nan"), float("inf")], "ü": ['"\x00', ""], "c": [True, False], "d": [2**60, -1]}
    )
    again = Measurement.from_bytes(Measurement(frame, 2, 0.25, True, "so: {}").to_bytes())
    pd.testing.assert_frame_equal(again.frame, frame, check_exact=True)
    assert again.batch_statistics and again.reason == "so: {}"
    assert Measurement.from_bytes(Measurement(pd.DataFrame(), 2, 0.5, reason="no").to_bytes()).frame.empty


def test_damaged_bytes_are_one_line() -> None:
    whole = Measurement(pd.DataFrame({"a": [1.0] * 200, "b": ["x", "y"] * 100}), 2, 0.25).to_bytes()
    damaged = [b"", b"nothing", whole[:-30], whole[: len(whole) // 2]]
    damaged += [whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :] for place in range(0, len(whole), 7)]
    refused = 0
    for content in damaged:
        try:
            Measurement.from_bytes(content)  # a byte that says nothing may be another
        except DataError as error:
            refused += 1
            assert "as a probe's measurement" in str(error) and "\n" not in str(error)
    assert refused > len(damaged) / 2
