"""The commands `leadline theory ...`: parse options, compute, print, and optionally write figures and data."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from leadline.cli.options import Json, print_json
from leadline.errors import LeadlineError, SpecError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from leadline.reports.charts.chart import Figure

app = typer.Typer(no_args_is_help=True)

Item = TypeVar("Item")
Output = Annotated[Path | None, typer.Option(help="Folder for figures (SVG) and their data (CSV); created if missing.")]


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
        print_text(*(one.words() for one in results))
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
        print_text(*(one.words() for one in results))
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
        words = (
            f"{activation}, sigma_w {point.sigma_w:.3g}, sigma_b {point.sigma_b:.3g} ({fixed.phase}): q* {fixed.q:.4g},"
            f" c* {fixed.c:.4g}, chi_1 {fixed.chi_1:.4g}, depth scale of the signal {_format_scale(fixed.xi_c)}, of"
            f" the squared gradient {_format_scale(fixed.xi_gradient)}. {seeds} networks of width {width}, {depth}"
            f" layers: mean q within {apart[0]:.1%}, c within {apart[1]:.2g}, log10 of the gradient within"
            f" {apart[2]:.2g}."
        )
        off = dict(zip(("q", "c", "log10_gradient"), map(float, apart), strict=True))
        found.append({**asdict(point), "fixed": asdict(fixed), "largest_deviation": off, "words": words})
    if as_json:
        print_json(found)
    else:
        print_text(*(one["words"] for one in found))
    if output is not None:
        _write([maps_figure(points), plane_figure(known, points), depth_figure(points, measured)], output, as_json)


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
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_whole(folder / name, content.encode())
    except OSError as error:
        raise LeadlineError(f"{folder}: cannot be written: {error.strerror or error}; choose another place") from None
    typer.echo(f"written: {len(contents)} files in {folder}", err=as_json)
