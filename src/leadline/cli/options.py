"""What commands share: options, settings, JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from leadline.errors import SpecError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Runs = Annotated[Path, typer.Option(envvar="LEADLINE_RUNS", help="Folder of the store and the checkpoints.")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", envvar="LEADLINE_STORE", help="SQLAlchemy URL; default: SQLite in RUNS.")
]
DataDir = Annotated[
    Path | None, typer.Option(envvar="LEADLINE_DATA", help="Folder of the data sets; default: the user's cache.")
]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Train each trial together; default: as many as the study says, mostly 1.")
]
Artifacts = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="LEADLINE_ARTIFACTS", help="Keep checkpoints here too: a folder, s3://, gs://."),
]
CheckpointEvery = Annotated[
    str,
    typer.Option(metavar="10m|500s|200steps|epoch", help="Between checkpoints of a trial within an epoch."),
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
RUNS = Path("runs")


def settings_of(pairs: list[str] | None) -> dict[str, object]:
    """Read KEY=VALUE pairs, values as in a study file.

    Raises:
        SpecError: one is no such pair.
    """
    from leadline.study.load import parse_value

    settings = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SpecError(f"--set {pair!r}: expected KEY=VALUE, such as training.epochs=3")
        settings[key] = parse_value(value)
    return settings


def print_json(value: object) -> None:
    """Print plain values as JSON; NaN is none of them."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))
