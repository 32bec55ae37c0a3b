import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from leadline.data.batches import Data, load
from leadline.errors import SpecError
from leadline.networks import cifar_plain, cifar_resnet, comparative_plain, comparative_resnet
from leadline.networks.modules import build
from leadline.probes.flow import probe
from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, UPDATE, WEIGHT_GRADIENT, ZEROS, FlowTable
from leadline.probes.watch import latest, watch
from leadline.probes.words import (
    EXPLODED,
    MOSTLY_DEAD,
    UNSTABLE_UPDATE,
    VANISHED,
    Finding,
    describe,
    judges_flow,
    relative_to_last,
)
from leadline.specs import DataSpec, NetworkSpec
from leadline.text import magnitude


@pytest.fixture(scope="module")
def digits() -> Data:
    return load(DataSpec(name="digits"))


def batches(data: Data, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        for images, labels in data.train_batches(0, epoch, 64, False):
            if steps == 0:
                return
            steps -= 1
            yield images, labels
        epoch += 1


def trained(spec: NetworkSpec, data: Data, steps: int, what: list[str] | None = None) -> FlowTable:
    model = build(spec, data.shape, data.classes)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4)
    with probe(model, what=what) as flow:
        for images, labels in batches(data, steps):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return flow.table()


def kinds(findings: list[Finding]) -> set[str]:
    return {finding.kind for finding in findings}


@pytest.mark.slow
@pytest.mark.parametrize("what", [None, ["gradients"]])
def test_a_plain_network_of_thirty_blocks_without_normalisation_is_said_to_vanish(
    digits: Data, what: list[str] | None
) -> None:
    table = trained(comparative_plain(30), digits, 3, what)
    findings = describe(table)
    assert "vanishing" in kinds(findings) and not kinds(findings) & {"healthy", "exploding"}
    (vanishing,) = [finding for finding in findings if finding.kind == "vanishing"]
    assert vanishing.value < 1e-15 and vanishing.threshold == VANISHED
    assert vanishing.sentence.startswith(f"block {table.blocks.index(vanishing.layer) + 1} of 30: gradient norm ")
    assert magnitude(vanishing.value) in vanishing.sentence and "median of 3 steps" in vanishing.sentence


@pytest.mark.slow
def test_a_plain_network_with_batch_normalisation_is_not_said_to_vanish(digits: Data) -> None:
    table = trained(cifar_plain(56), digits, 24)
    assert len(table.blocks) == 27
    assert "vanishing" not in kinds(describe(table))
    assert "vanishing" not in kinds(describe(table.between(0, 1)))


@pytest.mark.slow
def test_residual_networks_are_healthy(digits: Data) -> None:
    (finding,) = describe(trained(cifar_resnet(20), digits, 8))
    assert finding.kind == "healthy" and "gradient norms of all 9 blocks are " in finding.sentence
    assert "vanishing" not in kinds(describe(trained(comparative_resnet(10), digits, 4)))


def table_of(
    gradients: list[list[float]],
    dead: list[float] | None = None,
    blocks: bool = True,
    updates: list[float] | None = None,
) -> FlowTable:
    layers = tuple(f"b.{number}" for number in range(len(gradients[0])))
    columns, names, found = [np.array(gradients, np.float64)], layers, (ACTIVATION_GRADIENT,) * len(layers)
    if dead is not None:
        columns.append(np.array([[np.nan] * len(dead)] * (len(gradients) - 1) + [dead]))
        names, found = names + layers, found + (DEAD,) * len(layers)
    if updates is not None:
        columns.append(np.array([[update] for update in updates]))
        names, found = (*names, "b.0.weight"), (*found, UPDATE)
    values = np.concatenate(columns, 1).astype(np.float32)
    return FlowTable(names, found, np.arange(len(gradients)), values, layers if blocks else ())


def test_sentences() -> None:
    (finding,) = describe(table_of([[3e-9, 1e-5, 0.5, 1], [3e-9, 1e-5, 2, 1], [9e-9, 1e-5, 3, 1]], [0.94, 0.2, 0, 0]))[
        :1
    ]
    assert finding == Finding(
        "vanishing",
        "block 1 of 4: gradient norm 3e-9 of the last block's, median of 3 steps; below 0.0001 in 2 of 4 blocks;"
        " dead units 94%",
        pytest.approx(3e-9),
        VANISHED,
        "b.0",
    )
    (finding,) = describe(table_of([[2e6, 1e5, 1, 2]], blocks=False))
    assert finding.kind == "exploding" and finding.threshold == EXPLODED
    assert finding.sentence == (
        "layer 1 of 4 (b.0): gradient norm 1e6 of the last layer's, median of 1 step; above 1e4 in 2 of 4 layers"
    )
    (finding,) = describe(table_of([[1, 1, 1]], [0.1, 0.75, 0.5]))
    assert (finding.kind, finding.layer, finding.value) == ("dead", "b.1", 0.75)
    assert finding.sentence == (
        "block 2 of 3: dead units 75%, never active in what was seen of the epoch; 50% or more in 2 of 3 layers"
    )
    (finding,) = describe(table_of([[1, 1], [np.inf, 1], [np.inf, np.inf]]))
    assert (finding.kind, finding.value) == ("unstable", 2)
    assert finding.sentence == "block 1 of 2: gradient norm not finite at 2 of 3 steps"
    (finding,) = describe(table_of([[1, 1]] * 3, updates=[0.001, 0.3, 0.2]))
    assert (finding.kind, finding.layer) == ("unstable", "b.0.weight")
    assert finding.sentence == (
        "b.0.weight: one step changes it by 0.2 of its norm, median of 3 steps; 0.1 or more in 1 of 1 weights"
    )
    (finding,) = describe(table_of([[0.5, 0.25, 1]], [0.1, 0.02, 0]))
    assert (finding.kind, finding.layer, finding.value) == ("healthy", "b.1", 0.25)
    assert finding.sentence == (
        "gradient norms of all 3 blocks are 0.25 to 1 times the last block's, median of 1 step; dead units at most 10%"
    )


def test_a_network_without_dead_units_is_said_to_have_none() -> None:
    (finding,) = describe(table_of([[1, 1]], [0, 0]))
    assert finding.sentence.endswith("median of 1 step; no dead units")


def test_thresholds_are_where_they_are_said_to_be() -> None:
    for ratio, kind in ((VANISHED * 0.9, "vanishing"), (VANISHED * 1.1, "healthy")):
        assert kinds(describe(table_of([[ratio, 1]]))) == {kind}
    for ratio, kind in ((EXPLODED * 1.1, "exploding"), (EXPLODED * 0.9, "healthy")):
        assert kinds(describe(table_of([[ratio, 1]]))) == {kind}
    for dead, kind in ((MOSTLY_DEAD, "dead"), (MOSTLY_DEAD - 0.01, "healthy")):
        assert kinds(describe(table_of([[1, 1]], [dead, 0]))) == {kind}
    for update, kind in ((UNSTABLE_UPDATE * 1.01, "unstable"), (UNSTABLE_UPDATE * 0.9, "healthy")):
        assert kinds(describe(table_of([[1, 1]], updates=[update]))) == {kind}


def test_little_or_nothing_measured_says_little_or_nothing() -> None:
    assert describe(FlowTable((), (), np.array([], np.int64), np.empty((0, 0), np.float32))) == []
    assert describe(table_of([[np.nan, np.nan]])) == []
    assert describe(table_of([[1.0]])) == []
    # a network through which nothing flows any more
    assert kinds(describe(table_of([[0, 0, 0]]))) == {"vanishing"}
    assert kinds(describe(table_of([[np.inf, np.inf]]))) == {"unstable"}
    # weights that were zeros have an infinite ratio at their first step, and that is no news
    assert kinds(describe(table_of([[1, 1]] * 3, updates=[np.inf, 0.01, 0.01]))) == {"healthy"}


def test_gradients_of_weights_stand_in_for_those_of_outputs() -> None:
    names = ("a.conv1.weight", "a.conv2.weight", "b.conv1.weight", "b.conv2.weight", "head.weight")
    table = FlowTable(
        names, (WEIGHT_GRADIENT,) * 5, np.arange(1), np.array([[3e-9, 4e-9, 3, 4, 100]], np.float32), ("a", "b")
    )
    (finding,) = describe(table)
    assert (finding.kind, finding.layer, finding.value) == ("vanishing", "a", pytest.approx(1e-9))


def test_layers_without_gradients_are_left_out() -> None:
    names = ("a.conv.weight", "b.conv1.weight", "b.conv2.weight", "c.conv.weight")
    values = np.array([[np.nan, np.nan, 1e-9, 10], [np.nan, np.nan, 1e-9, 10]], np.float32)
    frozen = FlowTable(names, (WEIGHT_GRADIENT,) * 4, np.arange(2), values, ("a", "b", "c"))
    (finding,) = describe(frozen)
    assert (finding.kind, finding.layer, finding.value) == ("vanishing", "b", pytest.approx(1e-10))
    assert finding.sentence == (
        "block 2 of 3: gradient norm 1e-10 of the last measured block's, median of 2 steps; below 0.0001 in 1 of 2"
        " measured blocks"
    )
    (finding,) = describe(table_of([[np.nan, 0.5, 1]], blocks=False))
    assert finding.kind == "healthy"
    assert finding.sentence.startswith("gradient norms of all 2 measured layers are 0.5 to 1 times the last measured")
    (finding,) = describe(table_of([[np.nan, 1e-9, 1]], blocks=False))
    assert finding.sentence.startswith("measured layer 1 of 2 (b.1): gradient norm 1e-9 of the last measured layer's")
    assert judges_flow(frozen) and not judges_flow(table_of([[np.nan, np.nan, 1]]))


def test_ratios_and_numbers() -> None:
    norms = np.array([[2.0, 1, 4], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(relative_to_last(norms), [[0.5, 0.25, 1], [0, np.inf, 1], [0, 0, 1]])
    assert [magnitude(value) for value in (3e-9, 0.25, 12345.0, 1, 0)] == ["3e-9", "0.25", "1.2e4", "1", "0"]


class Mine(nn.Module):
    """A model that is not ours."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        self.classifier = nn.Linear(144, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


def fit(model: nn.Module, data: Data, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for images, labels in batches(data, steps):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.slow
def test_a_log_gets_each_finding_once(digits: Data) -> None:
    file = io.StringIO()
    model = build(comparative_plain(8), digits.shape, digits.classes)
    with watch(model, seconds=0, console=Console(file=file, width=60)) as flow:
        fit(model, digits, 5)
    assert flow.table().steps.tolist() == [0, 1, 2, 3, 4]
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("step 0: vanishing: block 1 of 8: gradient norm ")
    assert sum("vanishing" in line for line in lines) == 1
    file = io.StringIO()
    model = Mine()
    with watch(model, seconds=0, console=Console(file=file)):
        fit(model, digits, 5)
    assert len(file.getvalue().splitlines()) == 1 and file.getvalue().startswith(
        "step 0: healthy: gradient norms of all 4"
    )


def test_a_terminal_gets_a_table_in_place(digits: Data) -> None:
    file = io.StringIO()
    model = Mine()
    console = Console(file=file, force_terminal=True, width=120, height=40, color_system=None, legacy_windows=False)
    with watch(model, seconds=0, console=console):
        fit(model, digits, 3)
    shown = file.getvalue()
    for word in (
        "features.0",
        "features.1",
        "classifier",
        "update/weight",
        "second moment",
        "step 0",
        "step 2",
        "healthy: ",
    ):
        assert word in shown
    assert "\x1b[1A" in shown  # the cursor goes up: the same place again
    assert not any(module._forward_hooks for module in model.modules())


def test_a_notebook_without_widgets_gets_lines(digits: Data) -> None:
    with watch(Mine(), seconds=0, console=Console(file=io.StringIO(), force_jupyter=True)) as flow:
        fit(flow._model, digits, 1)
    assert len(flow.table().steps) == 1


def test_many_layers_are_shown_evenly(digits: Data) -> None:
    file = io.StringIO()
    model = build(comparative_plain(12), digits.shape, digits.classes)
    console = Console(file=file, force_terminal=True, width=140, height=40, color_system=None)
    with watch(model, seconds=1000, rows=5, console=console):
        fit(model, digits, 1)
    assert "stages.0.0" in file.getvalue() and "5 of 13 layers, evenly over depth" in file.getvalue()
    assert "stages.0.1 " not in file.getvalue()


def test_the_display_ends_with_the_training_whatever_ends_it(digits: Data) -> None:
    model = Mine()
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(KeyboardInterrupt), watch(model, seconds=0, console=console):
        fit(model, digits, 1)
        raise KeyboardInterrupt
    with console.status("free again"):  # a console shows one thing at a time
        pass
    with pytest.raises(SpecError, match="did you mean 'gradients'"):
        watch(model, what="gradiens")
    with watch(model, console=console):
        pass  # no step at all


def test_weights_stand_beside_their_module(digits: Data) -> None:
    model = build(cifar_resnet(8), digits.shape, digits.classes)
    with probe(model) as flow:
        fit(model, digits, 1)
    table = flow.table()
    layers, columns = latest(table)
    assert layers == ["stem", *table.blocks, "head"]
    names, values = table.series(WEIGHT_GRADIENT)
    own = [value for name, value in zip(names, values[0], strict=True) if name.startswith("stages.0.0.")]
    assert len(own) == 2
    assert columns[WEIGHT_GRADIENT][layers.index("stages.0.0")] == pytest.approx(float(np.linalg.norm(own)), rel=1e-5)
    assert columns[ZEROS] == pytest.approx(table.series(ZEROS)[1][0].tolist())
    with probe(model, what=["gradients", "updates"]) as flow:
        fit(model, digits, 1)
    layers, columns = latest(flow.table())
    assert tuple(layers) == names and set(columns) == {WEIGHT_GRADIENT, UPDATE}
