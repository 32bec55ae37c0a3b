"""The commands `leadline theory ...`: parse options, compute, print, and optionally write figures and data."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from leadline.cli.options import Json, print_json
from leadline.errors import LeadlineError, SpecError, unknown
from leadline.text import plural

if TYPE_CHECKING:
    import pandas as pd

    from leadline.reports.charts.chart import Figure
    from leadline.text.tables import Table
    from leadline.theory.chains import ChainResult
    from leadline.theory.variance import VarianceResult

app = typer.Typer(no_args_is_help=True)

Item = TypeVar("Item")


def _make_folder(folder: Path | None) -> Path | None:
    """Create a folder before anything is computed for it.

    Raises:
        LeadlineError: it cannot be created.
    """
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LeadlineError(
                f"{folder}: cannot be created: {error.strerror or error}; choose another place"
            ) from None
    return folder


Output = Annotated[
    Path | None,
    typer.Option(callback=_make_folder, help="Folder for figures (SVG) and their data (CSV); created if missing."),
]


@app.command()
def parity(
    bits: Annotated[str, typer.Option(help="Number of bits or a range, such as 12 or 2-16.")] = "2-16",
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Count the gates and depth of parity circuits, compare them with closed forms, and verify each circuit."""
    from leadline.text.terminal import print_text, progress_bar
    from leadline.theory.parity import FAMILIES, circuit, counts
    from leadline.theory.parity_figures import draw, figures, table

    with progress_bar("parity") as progress:
        frame = counts(_parse_range(bits), beyond=True, progress=progress)
    found = table(frame)
    if as_json:
        print_json(list(found.rows))
    else:
        print_text(found)
    if output is not None:
        drawings = {f"parity-{name}-4": draw(circuit(name, 4)) for name in FAMILIES}
        _write(figures(frame), output, as_json, drawings)


@app.command()
def chain(
    weight: Annotated[
        list[float] | None,
        typer.Option(help="Singular value of every weight matrix; repeatable; default: 0.9, 1.0 and 1.1."),
    ] = None,
    layers: Annotated[int, typer.Option(help="Number of layers, at most 10000.")] = 100,
    kind: Annotated[str, typer.Option(help="Kind of layer: scalar, dense or convolutional.")] = "dense",
    activation: Annotated[str, typer.Option(help="Activation: linear, tanh, sigmoid or relu.")] = "linear",
    shortcut: Annotated[str, typer.Option(help="Shortcut: none, identity or scaled.")] = "none",
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Measure vanishing and exploding gradients in deep chains, and compare them with the closed form."""
    from leadline.text.terminal import print_text
    from leadline.theory.chain_figures import chain_figure
    from leadline.theory.chains import chain as measured

    given: Any = {"kind": kind, "activation": activation, "shortcut": shortcut}
    results = [measured(w, layers, **given) for w in _track("chain", weight or (0.9, 1.0, 1.1))]
    if as_json:
        print_json([_to_json(asdict(one.chain), one.words(), one.frame()) for one in results])
    else:
        print_text(_chain_table(results))
    if output is not None:
        _write([chain_figure(results)], output, as_json)


@app.command()
def variance(
    initialisation: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of an initialisation; repeatable; default: old-uniform, xavier-normal, he-normal and orthogonal."
        ),
    ] = None,
    activation: Annotated[str, typer.Option(help="Activation: linear, relu or tanh.")] = "relu",
    depth: Annotated[int, typer.Option(help="Number of layers.")] = 30,
    width: Annotated[int, typer.Option(help="Units or channels per layer.")] = 256,
    kernel: Annotated[int | None, typer.Option(help="Kernel size of 2-D convolutions; default: dense layers.")] = None,
    networks: Annotated[int, typer.Option(help="Number of random networks to measure.")] = 16,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Predict the second moments of activations and gradients by depth for initialisations, and measure them."""
    from leadline.text.terminal import print_text
    from leadline.theory.chain_figures import variance_figure
    from leadline.theory.variance import stack
    from leadline.theory.variance import variance as measured

    names: Any = initialisation or ["old-uniform", "xavier-normal", "he-normal", "orthogonal"]
    given: Any = {"activation": activation, "kernel": kernel}
    stacks = [stack(name, depth=depth, width=width, **given) for name in names]
    results = [measured(one, networks) for one in _track("variance", stacks)]
    if as_json:
        print_json([_to_json({"stack": str(one.stack)}, one.words(), one.frame()) for one in results])
    else:
        print_text(_variance_table(results))
    if output is not None:
        _write([variance_figure(results)], output, as_json)


@app.command("mean-field")
def mean_field(
    activation: Annotated[str, typer.Option(help="Activation: relu, tanh, sigmoid, gelu, ...")] = "tanh",
    sigma_w: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation of the weights times the square root of the fan-in; default: one value in each"
            " phase, ordered, critical and chaotic, with a suitable sigma-b."
        ),
    ] = None,
    sigma_b: Annotated[float, typer.Option(help="Standard deviation of the biases, if sigma-w is given.")] = 0.0,
    depth: Annotated[int, typer.Option(help="Number of layers.")] = 30,
    width: Annotated[int, typer.Option(help="Units per layer of the random networks.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Number of random networks to measure.")] = 5,
    output: Output = None,
    as_json: Json = False,
) -> None:
    """Predict how signals and gradients propagate in wide random networks, and measure them."""
    from typing import get_args

    from leadline.specs.network import Activation
    from leadline.text.terminal import print_text
    from leadline.theory.meanfield import Point, fixed_point, gradient, signal
    from leadline.theory.meanfield_figures import depth_figure, maps_figure, plane_figure, three_points
    from leadline.theory.random_networks import measure

    if activation not in get_args(Activation):
        raise SpecError(unknown("activation", activation, get_args(Activation)))
    known: Any = activation
    points = three_points(known) if sigma_w is None else (Point(known, sigma_w, sigma_b),)
    measured = [measure(point, depth, seeds, width) for point in _track("mean-field", points)]
    found = []
    for point, seen in zip(points, measured, strict=True):
        fixed = fixed_point(point)
        q, c = signal(point, depth)
        apart = [
            abs(seen.q.mean(0) / q - 1).max(),
            abs(seen.c.mean(0) - c).max(),
            abs(seen.gradient.mean(0) - gradient(point, q)).max(),
        ]
        off = dict(zip(("q", "c", "log10_gradient"), map(float, apart), strict=True))
        found.append({**asdict(point), "fixed": asdict(fixed), "largest_deviation": off})
    if as_json:
        print_json(found)
    else:
        print_text(_mean_field_table(found, f"{plural(seeds, 'network')} of width {width} and {depth} layers"))
    if output is not None:
        _write([maps_figure(points), plane_figure(known, points), depth_figure(points, measured)], output, as_json)


def _chain_table(results: Sequence["ChainResult"]) -> "Table":
    """Return one row per chain: its gradient at the first layer, and how far measurements are from the closed form."""
    from leadline.text.tables import Column, Table, plain

    columns = (
        Column("Chain", ("chain",), plain, numeric=False),
        Column("Gradient at layer 1", ("gradient",), plain),
        Column("Deviation in float32", ("float32",), plain),
        Column("Deviation in float64", ("float64",), plain),
        Column("What float32 cannot represent", ("failures",), plain, numeric=False, wide=True),
    )
    rows = tuple(
        {
            "chain": str(one.chain),
            "gradient": one.gradient,
            "failures": "; ".join(one.failures) or None,
            **{name: one.deviations.get(name) for name in ("float32", "float64")},
        }
        for one in results
    )
    caption = (
        "Norm of the loss's gradient at the first layer over that at the last, and the largest deviation of a measured"
        " activation or gradient from the closed form"
    )
    return Table("chain", caption, columns, rows)


def _mean_field_table(found: Sequence[dict[str, Any]], networks: str) -> "Table":
    """Return one row per point: what is predicted of wide networks, and how far random ones are from it."""
    from leadline.text.tables import Column, Table, plain

    columns = (
        Column("sigma_w", ("sigma_w",), "{:.3g}".format),
        Column("sigma_b", ("sigma_b",), "{:.3g}".format),
        Column("Phase", ("phase",), plain, numeric=False),
        Column("q*", ("q",), "{:.4g}".format),
        Column("c*", ("c",), "{:.4g}".format),
        Column("chi_1", ("chi_1",), "{:.4g}".format),
        Column("Depth scale of c", ("xi_c",), _format_scale),
        Column("Depth scale of the squared gradient", ("xi_gradient",), _format_scale),
        Column("Measured q within", ("off_q",), "{:.1%}".format),
        Column("c within", ("off_c",), "{:.2g}".format),
        Column("log10 of the gradient within", ("off_log10_gradient",), "{:.2g}".format),
    )
    rows = tuple(
        {**one, **one["fixed"], **{f"off_{name}": value for name, value in one["largest_deviation"].items()}}
        for one in found
    )
    caption = f"Predictions for wide {found[0]['activation']} networks, and how far the mean of {networks} is from them"
    return Table("mean-field", caption, columns, rows)


def _variance_table(results: Sequence["VarianceResult"]) -> "Table":
    """Return one row per stack: what is left of second moments at its far ends, measured and predicted."""
    from leadline.text.tables import Column, Table

    columns = (
        Column("Stack", ("stack",), str, numeric=False),
        Column("Forward", ("forward",), "{:.3g}".format),
        Column("predicted", ("forward_predicted",), "{:.3g}".format),
        Column("Backward", ("backward",), "{:.3g}".format),
        Column("predicted", ("backward_predicted",), "{:.3g}".format),
    )
    rows = tuple(
        {
            "stack": str(one.stack),
            "forward": one.measured[0, -1],
            "forward_predicted": one.predicted[0, -1],
            "backward": one.measured[1, 0],
            "backward_predicted": one.predicted[1, 0],
        }
        for one in results
    )
    caption = (
        "What is left of the input's second moment at the last layer, and of the gradient's at the first; mean of"
        f" {plural(results[0].networks, 'network')}"
    )
    return Table("variance", caption, columns, rows)


def _track(title: str, items: Sequence[Item]) -> Iterator[Item]:
    """Yield items, with a progress bar on standard error while the one before is worked on."""
    from leadline.text.terminal import progress_bar

    with progress_bar(title) as progress:
        for done, item in enumerate(items):
            progress(done, len(items))
            yield item


def _to_json(given: dict[str, Any], words: str, frame: "pd.DataFrame") -> dict[str, Any]:
    return {**given, "words": words, "values": frame.to_dict("records")}


def _format_scale(scale: float) -> str:
    return "infinite" if math.isinf(scale) else f"{scale:.3g} layers"


def _parse_range(text: str) -> range:
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise SpecError(f"--bits {text!r}: expected a number or a range, such as 2-16")
    sizes = range(int(low), int(high or low) + 1)
    if not sizes:
        raise SpecError(f"--bits {text!r}: the range is empty; expected an increasing range, such as 2-16")
    return sizes


def _write(figures: Sequence["Figure"], folder: Path, as_json: bool, drawings: dict[str, str] | None = None) -> None:
    """Write each figure as SVG together with its data, and the drawings.

    Raises:
        LeadlineError: a file cannot be written.
    """
    from leadline.reports.charts.files import to_svg, write_whole
    from leadline.text.tables import frame_to_csv

    contents = {f"{figure.name}.svg": to_svg(figure) for figure in figures if figure.panels}
    contents |= {f"{figure.name}.csv": frame_to_csv(figure.data) for figure in figures}
    contents |= {f"{name}.svg": svg for name, svg in (drawings or {}).items()}
    try:
        for name, content in contents.items():
            write_whole(folder / name, content.encode())
    except OSError as error:
        raise LeadlineError(f"{folder}: cannot be written: {error.strerror or error}; choose another place") from None
    typer.echo(f"written: {len(contents)} files in {folder}", err=as_json)
