"""What the networks of a study are: parameters, multiply-adds, and a drawing of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leadline.data.metadata import describe
from leadline.data.network_input import NetworkInput
from leadline.errors import LeadlineError
from leadline.networks.drawing import draw
from leadline.networks.modules import NetworkInfo, inspect_network
from leadline.networks.modules.shapes import remember_shapes
from leadline.reports.charts.chart import spread
from leadline.reports.page import Drawing, Section
from leadline.reports.settings import name_arms, settings_table
from leadline.specs import ModuleSpec, NetworkSpec
from leadline.study.expand import Arm, ExpandedStudy
from leadline.text import NOTHING, join, number
from leadline.text.tables import Column, Table, plain

SHOWN_NETWORKS, SHOWN_DRAWINGS = 40, 12

Shape = tuple[tuple[int, int, int], int]
"""Channels, height and width of an image, and the number of classes."""


@dataclass(frozen=True)
class _Counted:
    """One network, for images of one shape, and the arms that train it."""

    network: NetworkSpec | ModuleSpec
    shape: Shape
    info: NetworkInfo
    arms: tuple[Arm, ...]


def setup_section(study: ExpandedStudy, inputs: Mapping[str, NetworkInput], data_dir: Path | None) -> Section:
    """Return the section about how the arms were trained, and what their networks are.

    Args:
        study: whose arms they are.
        inputs: what the networks of trained arms take, by arm.
        data_dir: folder of the data sets, which is asked about arms that no trial has finished; None: the default one.
    """
    counted, refused, more = _count(study, inputs, data_dir)
    drawings, left_out, undrawn = _draw(study, counted)
    said = [f"The network of {join(arms)} could not be counted: {reason}." for reason, arms in refused.items()]
    said += [f"{reason}." for reason in undrawn]
    if more:
        said.append(
            f"{SHOWN_NETWORKS} of {SHOWN_NETWORKS + more} different networks are counted, evenly over all;"
            " leadline inspect counts any other."
        )
    if left_out:
        those = "of these" if more else "different"
        said.append(f"The first {SHOWN_DRAWINGS} of {SHOWN_DRAWINGS + left_out} {those} networks are drawn.")
    tables = (settings_table(study), networks_table(study, counted))
    return Section("setup", "Training and networks", tuple(said), (), tables, drawings)


def networks_table(study: ExpandedStudy, counted: Sequence[_Counted]) -> Table:
    """Return one row per arm: input, parameters, multiply-adds, receptive field and memory."""
    infos = {arm.name: one for one in counted for arm in one.arms}
    rows = tuple(
        {
            "arm": arm.name,
            "input": "×".join(map(str, one.shape[0])),
            "classes": one.shape[1],
            "parameters": one.info.parameters,
            "multiply_adds": one.info.multiply_adds,
            "receptive_field": one.info.receptive_field,
            "training_memory": one.info.training_memory,
        }
        for arm in study.arms
        if (one := infos.get(arm.name))
    )
    columns = (
        Column("Arm", ("arm",), plain, numeric=False),
        Column("Input", ("input",), plain),
        Column("Outputs", ("classes",), plain),
        Column("Parameters", ("parameters",), "{:,}".format),
        Column("Multiply-adds, millions", ("multiply_adds",), lambda count: number(count / 1e6, 2)),
        Column("Receptive field, pixels", ("receptive_field",), lambda size: NOTHING if size is None else f"{size:,}"),
        Column("Kept for the backward pass, kB", ("training_memory",), lambda size: number(size / 1e3, 1)),
    )
    return Table("networks", "Networks, for one image", columns, rows)


def _count(
    study: ExpandedStudy, inputs: Mapping[str, NetworkInput], data_dir: Path | None
) -> tuple[list[_Counted], dict[str, list[str]], int]:
    """Return networks with their counts, arms whose network cannot be counted by reason, and how many are left out."""
    found: dict[tuple[str, Shape], list[Arm]] = {}
    refused: dict[str, list[str]] = {}
    for arm in study.arms:
        try:
            given = inputs.get(arm.name)
            shape = (given.input_shape, given.classes) if given else describe(arm.trial.data, data_dir)
        except LeadlineError as error:
            refused.setdefault(str(error), []).append(arm.name)
            continue
        found.setdefault((arm.trial.network.model_dump_json(), shape), []).append(arm)
    counted = []
    with remember_shapes():  # which networks have in common
        for (_, shape), arms in spread(list(found.items()), SHOWN_NETWORKS):
            network = arms[0].trial.network
            try:
                counted.append(_Counted(network, shape, inspect_network(network, *shape), tuple(arms)))
            except LeadlineError as error:
                refused.setdefault(str(error), []).extend(arm.name for arm in arms)
    return counted, refused, max(0, len(found) - SHOWN_NETWORKS)


def _draw(study: ExpandedStudy, counted: Sequence[_Counted]) -> tuple[tuple[Drawing, ...], int, list[str]]:
    """Return drawings of the first networks, how many more there are, and why others cannot be drawn."""
    drawings: list[Drawing] = []
    refused: list[str] = []
    for place, one in enumerate(counted[:SHOWN_DRAWINGS], start=1):
        title = name_arms(study.arms, [arm.name for arm in one.arms])
        try:
            drawings.append(Drawing(f"network-{place}", title, draw(one.network, *one.shape, title, one.info)))
        except LeadlineError as error:
            refused.append(str(error))
    return tuple(drawings), max(0, len(counted) - SHOWN_DRAWINGS), refused
