"""Options, settings and JSON output shared by the commands."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from leadline import __version__
from leadline.errors import SpecError

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Runs = Annotated[Path, typer.Option(envvar="LEADLINE_RUNS", help="Folder for the store and the checkpoints.")]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", envvar="LEADLINE_STORE", help="SQLAlchemy URL of the store; default: SQLite in RUNS."),
]
DataDir = Annotated[
    Path | None, typer.Option(envvar="LEADLINE_DATA", help="Folder with the data sets; default: the user's cache.")
]
A_TRIAL = "A finished trial: STUDY/ARM/SEED, or the beginning of its hash"
Trial = Annotated[str, typer.Argument(help=f"{A_TRIAL}.")]
Averaged = Annotated[
    bool, typer.Option("--averaged", help="Take the average of the weights that training.averaging keeps.")
]
Devices = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, help="Devices that train each trial together; default: the study's setting, usually 1."
    ),
]
Artifacts = Annotated[
    str | None,
    typer.Option(
        metavar="URL", envvar="LEADLINE_ARTIFACTS", help="Also copy checkpoints here: a folder, s3:// or gs:// URL."
    ),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(
        metavar="10m|500s|200steps|epoch", help="Interval between checkpoints; epoch: only at the end of every epoch."
    ),
]
TrialsPerWorker = Annotated[
    int, typer.Option(min=1, help="Trials that each worker trains at once, for small networks on a card.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the study or network; repeatable."),
]
Device = Annotated[str, typer.Option(help="Device to train on: cpu, cuda, cuda:N, mps or auto.")]
Trust = Annotated[
    str | None,
    typer.Option(
        metavar="PACKAGE,...",
        envvar="LEADLINE_TRUST",
        help="Packages outside the current folder whose code may run; all: any code.",
    ),
]
RUNS = Path("runs")


def print_version(asked: bool) -> None:
    """Print the version and exit, if asked."""
    if asked:
        typer.echo(f"leadline {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
]


def settings_of(pairs: list[str] | None) -> dict[str, object]:
    """Parse KEY=VALUE pairs, with values written as in a study file.

    Raises:
        SpecError: an item is not a KEY=VALUE pair.
    """
    from leadline.study.yaml12 import parse_value

    settings = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SpecError(f"--set {pair!r}: expected KEY=VALUE, such as training.epochs=3")
        settings[key] = parse_value(value, key)
    return settings


def print_json(value: object) -> None:
    """Print plain values as JSON, with null for NaN and infinity."""
    typer.echo(json.dumps(_replace_non_finite(value), indent=2, allow_nan=False))


def _replace_non_finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _replace_non_finite(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
