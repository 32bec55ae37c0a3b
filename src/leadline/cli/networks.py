"""Commands about networks, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leadline.cli.names import dataset_names, network_names, study_names
from leadline.cli.options import Json, Settings, print_json, settings_of
from leadline.errors import SpecError
from leadline.text import byte_size, plural

if TYPE_CHECKING:
    from leadline.networks.modules import NetworkInfo

app = typer.Typer()

WHOLE = "(the network itself)"
"""Table row for what a network computes outside its layers."""


@app.command("list")
def list_(
    name: Annotated[
        str | None,
        typer.Argument(help="A ready study, network, data set, optimizer, ..., to describe; default: list all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the ready studies, the named networks and the data sets, or describe one of them."""
    if name is not None:
        from leadline.cli.describing import describe

        describe(name, as_json)
        return
    from leadline.text.tables import Column, Table
    from leadline.text.terminal import print_text

    sections = {
        "studies": dict(study_names()),
        "networks": dict(network_names()),
        "datasets": dict(dataset_names()),
    }
    if as_json:
        print_json(sections)
        return
    headings = {"studies": ("Study", "Title"), "networks": ("Network", "Summary"), "datasets": ("Data set", "Summary")}
    tables = []
    for section, entries in sections.items():
        columns = tuple(Column(heading, (heading,), str, numeric=False) for heading in headings[section])
        rows = tuple(dict(zip(headings[section], entry, strict=True)) for entry in entries.items())
        tables.append(Table(section, "", columns, rows))
    print_text(*tables)


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for completion and validation in editors."""
    from leadline.specs.study import StudySpec

    print_json(StudySpec.model_json_schema())


@app.command()
def inspect(
    network: Annotated[
        str,
        typer.Argument(
            help="A network's name (`leadline list`), or package.module:function.", autocompletion=network_names
        ),
    ],
    settings: Settings = None,
    input_shape: Annotated[str, typer.Option("--input", help="Input shape: channels x height x width.")] = "3x32x32",
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 10,
    figure: Annotated[Path | None, typer.Option(help="Draw the network into this file: .svg, .pdf or .png.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Check that a weights file fits the network.")] = None,
    as_json: Json = False,
) -> None:
    """Show a network's layers, parameters, multiply-adds and memory; optionally draw it."""
    from dataclasses import asdict

    from leadline.networks.modules import build, describe_network, inspect_network
    from leadline.study.expand import resolve_network

    shape = _shape(input_shape)
    spec = describe_network(resolve_network(network, settings_of(settings)), shape, classes)
    info = inspect_network(spec, shape, classes)
    if figure is not None:
        from leadline.networks.drawing import draw
        from leadline.reports.charts.files import write_drawing

        title = " ".join([network, *(settings or [])])
        write_drawing(draw(spec, shape, classes, title, info), figure)
    filled = None
    if weights is not None:
        from leadline.networks.weights import load_weights

        filled = load_weights(build(spec, shape, classes), weights)
    if as_json:
        fit = {} if filled is None else {"weights": asdict(filled)}
        print_json({"network": network, "spec": spec.model_dump(mode="json"), **asdict(info), **fit})
        return
    _print_layers(network, info)
    if filled is not None and weights is not None:
        kind = "safetensors" if weights.suffix == ".safetensors" else "PyTorch"
        typer.echo(
            f"{weights}: all {plural(filled.tensors, 'tensor')} of this {kind} file fit, under the names of"
            f" {filled.names}"
        )


@app.command("predict-depth")
def predict_depth(
    network: Annotated[str, typer.Argument(help="A network's name (`leadline list`).", autocompletion=network_names)],
    settings: Settings = None,
    input_shape: Annotated[str, typer.Option("--input", help="Input shape: channels x height x width.")] = "3x32x32",
    as_json: Json = False,
) -> None:
    """Predict from mean-field theory how deep signals and gradients propagate in the untrained network."""
    from leadline.networks.modules import describe_network
    from leadline.study.expand import resolve_network
    from leadline.text.terminal import print_text
    from leadline.theory.prediction import predict_depth as predicted

    shape = _shape(input_shape)
    found = predicted(describe_network(resolve_network(network, settings_of(settings)), shape, classes=10), shape)
    if as_json:
        print_json(found.to_json())
    else:
        print_text(found.words())


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SpecError(f"--input {text!r}: expected channels x height x width, such as 1x28x28")
    channels, height, width = map(int, parts)
    return channels, height, width


def _print_layers(name: str, info: "NetworkInfo") -> None:
    """Print the layers and totals of a network."""
    from leadline.text.tables import Column, Table
    from leadline.text.terminal import print_text

    columns = (
        Column("Layer", ("name",), lambda layer: layer or WHOLE, numeric=False),
        Column("Kind", ("kind",), str, numeric=False),
        Column("Output", ("output_shape",), lambda shape: "x".join(map(str, shape))),
        Column("Parameters", ("parameters",), _count),
        Column("Multiply-adds", ("multiply_adds",), _count),
    )
    lines = [f"Total: {info.parameters:,} parameters, {info.multiply_adds:,} multiply-adds for one image."]
    if info.receptive_field is not None:
        lines.append(f"Receptive field before the head: {info.receptive_field} x {info.receptive_field} pixels.")
    if info.uncounted:
        lines.append(f"Not counted in the multiply-adds: {', '.join(info.uncounted)}.")
    lines.append(
        f"Activations of one image: {byte_size(info.training_memory)} stored for training,"
        f" {byte_size(info.inference_memory)} peak for inference."
    )
    print_text(Table("layers", name, columns, tuple(map(vars, info.layers))), "\n".join(lines))


def _count(number: int) -> str:
    return f"{number:,}" if number else ""
