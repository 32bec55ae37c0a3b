"""`leadline data ...`: find, download and check data sets."""

from typing import TYPE_CHECKING, Annotated

import typer

from leadline.cli.names import dataset_names
from leadline.cli.options import DataDir

if TYPE_CHECKING:
    from leadline.data.datasets import DataSpec

app = typer.Typer(no_args_is_help=True)

Data = Annotated[
    str,
    typer.Argument(
        help="A data set's name (`leadline list`), package.module:function, or the `data` mapping of a study file in"
        " braces, such as '{name: npz, path: file.npz}'.",
        autocompletion=dataset_names,
    ),
]


@app.command("get")
def data_get(data: Data, data_dir: DataDir = None) -> None:
    """Download a data set if it is missing, then check it."""
    from leadline.data.files import default_data_dir

    _spec(data).fetch(data_dir or default_data_dir())
    data_check(data, data_dir)


@app.command("check")
def data_check(data: Data, data_dir: DataDir = None) -> None:
    """Read every file of a data set and print a summary of its contents."""
    from leadline.data.checking import check

    for line in check(_spec(data), data_dir):
        typer.echo(line)


def _spec(data: str) -> "DataSpec":
    from leadline.data.datasets import DataSpec
    from leadline.parts.base import parse
    from leadline.study.yaml12 import parse_value

    return parse(DataSpec, parse_value(data))
