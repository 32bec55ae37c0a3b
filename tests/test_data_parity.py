"""Parity as data: the right labels, no input in two parts, and hashes of other data sets as they were."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from leadline.data.arrays import Arrays
from leadline.data.batches import Dataset, load
from leadline.data.checking import check
from leadline.data.datasets import parity
from leadline.data.metadata import describe
from leadline.data.split import PartSizes
from leadline.errors import DataError, SpecError
from leadline.networks import mlp
from leadline.networks.modules import build
from leadline.specs import SGD, Adam, DataSpec, TrainingSpec, parse
from leadline.training import prepare, train


def spec(**given: object) -> DataSpec:
    return parse(DataSpec, {"name": "parity", **given})


def parts(asked: DataSpec) -> tuple[tuple[NDArray[np.uint8], NDArray[np.int64]], ...]:
    found = asked.read(Path())
    assert isinstance(found, Arrays) and found.test is not None
    return found.train, found.test


def loaded(**given: object) -> Dataset:
    data = load(spec(**given))
    assert isinstance(data, Dataset)
    return data


def numbers(images: torch.Tensor | NDArray[np.uint8]) -> list[int]:
    """The inputs as whole numbers, read from left to right in binary."""
    assert set(np.unique(np.asarray(images))) <= {0, 255}
    return [int("".join(str(int(bit > 0)) for bit in row), 2) for row in np.asarray(images)[:, 0, 0].tolist()]


# --- the function


@given(
    bits=st.integers(2, 64),
    samples=st.none() | st.integers(8, 300),
    test=st.none() | st.integers(1, 4),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_every_label_is_the_number_of_ones_modulo_2(
    bits: int, samples: int | None, test: int | None, seed: int
) -> None:
    everything = 100 if samples is None and bits > 12 else min(samples or 2**bits, 2**bits)
    held_out = test or everything // 4
    assume(held_out < everything)
    asked = spec(bits=bits, samples=None if everything == 2**bits else everything, test=test, subset_seed=seed)
    (train_images, train_labels), (test_images, test_labels) = parts(asked)
    assert train_images.shape == (len(train_labels), 1, 1, bits) and train_images.dtype == np.uint8
    train_inputs, test_inputs = numbers(train_images), numbers(test_images)
    assert [number.bit_count() % 2 for number in train_inputs] == train_labels.tolist()
    assert [number.bit_count() % 2 for number in test_inputs] == test_labels.tolist()
    assert train_inputs == sorted(train_inputs) and test_inputs == sorted(test_inputs)
    assert len(set(train_inputs) | set(test_inputs)) == len(train_inputs) + len(test_inputs)
    assert (len(train_inputs), len(test_inputs)) == (everything - held_out, held_out)


@pytest.mark.parametrize("bits", [4, 7, 10, 16])
def test_all_inputs_occur_once_and_each_part_is_even_over_the_classes(bits: int) -> None:
    data = loaded(bits=bits)
    splits = (data.train, data.validation, data.test)
    assert sorted(n for split in splits for n in numbers(split.images)) == list(range(2**bits))
    held_in = 2**bits * 3 // 4
    validation = min(held_in // 10, 5000)
    assert [len(split.labels) for split in splits] == [held_in - validation, validation, 2**bits // 4]
    for split in splits:
        zeros, ones = torch.bincount(split.labels, minlength=2).tolist()
        assert abs(zeros - ones) <= 1


def test_what_a_network_sees_is_plus_and_minus_one() -> None:
    images, labels = next(iter(loaded(bits=16).train_batches(0, 1, 1000)))
    assert images.shape == (1000, 1, 1, 16)
    # the training inputs are a random part of all, so their mean is a half but for chance
    assert torch.all((images.abs() - 1).abs() < 0.005)
    # an odd number of ones: an even number of zeros, each of them -1, changes no sign
    assert torch.equal(torch.sign(images).prod(-1).flatten() < 0, labels == 1)
    zero_one, labels = next(iter(loaded(bits=6, normalise="none").train_batches(0, 1, 40)))
    assert torch.equal(zero_one.sum((1, 2, 3)) % 2, labels.float())


# --- samples and seeds


@pytest.mark.slow
@pytest.mark.parametrize("bits", [12, 20, 21, 40, 64])
def test_samples_are_distinct_nested_and_chosen_by_their_seed(bits: int) -> None:
    def sample(count: int, seed: int = 0) -> set[int]:
        (train_images, _), (test_images, _) = parts(spec(bits=bits, samples=count, subset_seed=seed))
        return set(numbers(train_images)) | set(numbers(test_images))

    small, large = sample(200), sample(1000)
    assert len(small) == 200 and len(large) == 1000 and small < large
    assert sample(200, seed=1) != small and sample(200) == small
    # every bit is 1 in about half of the sample: six deviations of a fair coin
    counts = np.array([sum(number >> place & 1 for number in large) for place in range(bits)])
    assert np.all(np.abs(counts - 500) < 6 * np.sqrt(250))


def test_draws_that_repeat_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []

    def poor(positions: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
        draws.append(len(positions))
        return (positions // np.uint64(3)) << np.uint64(40)

    monkeypatch.setattr(parity, "split_mix", poor)
    (train_images, _), (test_images, _) = parts(spec(bits=24, samples=10, test=4))
    assert sorted(numbers(train_images) + numbers(test_images)) == list(range(10))
    assert draws == [10, 20, 40]


@pytest.mark.slow
def test_the_most_samples_are_quick_and_distinct() -> None:
    (train_images, train_labels), (test_images, test_labels) = parts(spec(bits=21, samples=2**20, test=2**19))
    assert len(train_labels) == len(test_labels) == 2**19
    rows = np.concatenate([np.packbits(images[:, 0, 0] > 0, axis=1) for images in (train_images, test_images)])
    assert len(np.unique(rows, axis=0)) == 2**20


def test_another_subset_seed_holds_out_other_inputs() -> None:
    base, other, again = loaded(), loaded(subset_seed=1), loaded()
    assert torch.equal(base.test.images, again.test.images)
    assert set(numbers(base.test.images)) != set(numbers(other.test.images))


def test_a_smaller_held_out_part_lies_inside_a_larger_one() -> None:
    assert set(numbers(loaded(test=50).test.images)) < set(numbers(loaded(test=200).test.images))


def test_training_images_can_be_fewer() -> None:
    data = loaded(bits=8, train=40, validation=10, test=100)
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [40, 10, 100]


# --- what else knows of data sets


def test_the_catalog_describes_the_default() -> None:
    assert spec().known_sizes == PartSizes(768, None, 256)
    assert describe(spec(bits=7)) == ((1, 1, 7), 2)
    data = loaded(bits=7)
    assert (data.name, data.shape, data.classes) == ("parity", (1, 1, 7), 2)


def test_check_counts_without_files(tmp_path: Path) -> None:
    assert spec().fetch(tmp_path) == [] and not list(tmp_path.iterdir())
    assert check(spec(), tmp_path).lines == [
        "parity train: 768 images of 1x1x10, 2 classes of 384 to 384",
        "parity test: 256 images of 1x1x10, 2 classes of 128 to 128",
    ]


@pytest.mark.parametrize("given", [{}, {"bits": 20, "samples": 1000}, {"bits": 5, "test": 3}])
def test_round_trip(given: dict[str, object]) -> None:
    assert parse(DataSpec, spec(**given).model_dump(mode="json")) == spec(**given)


# --- bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"bits": 17},
            "bits 17 has 2^17 = 131,072 inputs, too many to take all, which goes to 16 bits; give samples, up to"
            " 131,072 of them",
        ),
        (
            {"bits": 40},
            "bits 40 has 2^40 = 1,099,511,627,776 inputs, too many to take all, which goes to 16 bits; give samples,"
            " up to 1,048,576 of them",
        ),
        (
            {"bits": 4, "samples": 17},
            "samples 17 are more than the 2^4 = 16 possible inputs; remove it to use all of them",
        ),
        ({"bits": 1}, "bits: 1: input should be greater than or equal to 2"),
        ({"bits": 65, "samples": 10}, "bits: 65: input should be less than or equal to 64"),
        ({"bits": 8.0}, "bits: 8.0: input should be a valid integer"),
        ({"bits": True}, "bits: True: input should be a valid integer"),
        ({"bits": 30, "samples": 2**21}, "samples: 2097152: input should be less than or equal to 1048576"),
        ({"samples": 0}, "samples: 0: input should be greater than or equal to 1"),
        ({"augment": {"pad": 1}}, "augment of name parity would change bits and not the label; leave it out"),
        ({"name": "digits", "bits": 10}, "bits is for name parity, got digits; leave it out"),
        ({"name": "mnist", "samples": 10}, "samples is for name parity, got mnist; leave it out"),
        (
            {"name": "imagefolder", "path": "x", "augment": None, "bits": 10},
            "bits is for name parity, got imagefolder; leave it out",
        ),
        ({"path": "x"}, "path is for name csv, hf, imagefolder, npz, got parity; leave it out"),
        ({"normalise": "imagenet"}, "normalise imagenet is for encoded images, got parity; use channel"),
    ],
)
def test_a_bad_specification_gets_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(**given)
    assert str(caught.value) == message


def test_a_name_alone_is_checked_in_python_too() -> None:
    with pytest.raises(ValidationError, match="give samples"):
        DataSpec(name="parity", bits=30)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"bits": 2},
            "parity: a tenth of its 3 training images for validation is zero; set data.validation",
        ),
        ({"samples": 3}, "parity: a quarter of its 3 inputs for testing is zero; set data.test"),
        (
            {"bits": 4, "test": 16},
            "parity: 16 test inputs leave none of its 16 for training; lower data.test, or raise data.bits or"
            " data.samples",
        ),
        (
            {"train": 700},
            "parity: 700 training images requested, but of its 768 only 692 remain besides 76 for validation;"
            " lower data.train or data.validation",
        ),
        (
            {"bits": 4, "validation": 12},
            "parity: 12 validation images leave none of its 12 for training; lower data.validation",
        ),
    ],
)
def test_too_few_inputs_get_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(spec(**given))
    assert str(caught.value) == message


# --- learning


@pytest.mark.slow
def test_a_network_learns_the_table_of_a_few_bits() -> None:
    data = load(spec(bits=4, validation=1, test=1))
    recipe = TrainingSpec(epochs=150, batch_size=7, optimizer=Adam(learning_rate=0.01))
    state = prepare(build(mlp(hidden=1, width=32), data.shape, data.classes), recipe, torch.device("cpu"))
    last = {(record.split, record.name): record.value for record in train(state, data, recipe)}
    assert last[("final-train", "accuracy")] == 1


def test_a_linear_network_cannot_learn_it() -> None:
    """Along each of the cube's symmetric chains (5, 3, 3, 3, 1, 1) parity alternates and a halfspace turns once.

    So it is right on at most 3 + 3 * 2 + 2 = 11 of the 16 inputs.
    """
    data = load(spec(bits=4, validation=1, test=1))
    recipe = TrainingSpec(epochs=100, batch_size=14, optimizer=SGD(learning_rate=0.1))
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    state = prepare(linear, recipe, torch.device("cpu"))
    last = {(record.split, record.name): record.value for record in train(state, data, recipe)}
    assert last[("final-train", "accuracy")] <= 11 / 14 + 1e-6
