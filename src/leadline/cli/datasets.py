"""`leadline data ...`: find, download and check data sets."""

from typing import Any

import typer

from leadline.cli.options import DataDir
from leadline.errors import SpecError

app = typer.Typer(no_args_is_help=True)


@app.command("get")
def data_get(name: str, data_dir: DataDir = None) -> None:
    """Download a data set, unless it is there."""
    from leadline.data.files import fetch

    fetch(_dataset(name), data_dir)
    data_check(name, data_dir)


@app.command("check")
def data_check(name: str, data_dir: DataDir = None) -> None:
    """Read every file of a data set and say what is in it."""
    from leadline.data.files import check

    for line in check(_dataset(name), data_dir):
        typer.echo(line)


def _dataset(name: str) -> Any:
    from leadline.data.catalog import CATALOG
    from leadline.errors import unknown

    if name not in CATALOG:
        raise SpecError(unknown("data set", name, CATALOG))
    return name
