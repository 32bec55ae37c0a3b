"""`leadline data ...`: find, download and check data sets."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leadline.cli.names import dataset_names
from leadline.cli.options import DataDir, Json, print_json

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
def data_get(data: Data, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Download a data set if it is missing, then check it."""
    from leadline.data.files import default_data_dir

    _spec(data).fetch(data_dir or default_data_dir())
    data_check(data, data_dir, as_json)


@app.command("check")
def data_check(data: Data, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Read every file of a data set and print a summary of its contents."""
    from leadline.data.checking import check
    from leadline.text.tables import Column, Table
    from leadline.text.terminal import print_text

    found = check(_spec(data), data_dir)
    if as_json:
        print_json(asdict(found))
        return
    files = (
        Column("File", ("path",), str, numeric=False),
        Column("Bytes", ("bytes",), "{:,}".format),
        Column("Compared with the published file", ("checksum",), str, numeric=False),
    )
    parts = (
        Column("Part", ("part",), str, numeric=False),
        Column("Images", ("images",), "{:,}".format),
        Column("Shape", ("shape",), lambda shape: "x".join(map(str, shape))),
        Column("Classes", ("classes",), "{:,}".format),
        Column("Images per class", ("smallest_class", "largest_class"), "{:,} to {:,}".format),
    )
    print_text(
        Table("parts", found.name, parts, tuple(map(asdict, found.parts))),
        Table("files", "Files", files, tuple(map(asdict, found.files))),
        *found.notes,
    )


@app.command("show")
def data_show(
    data: Data,
    figure: Annotated[Path, typer.Option(help="Draw the images into this file: .svg, .pdf or .png.")],
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="YAML",
            help="An augmentation or a list, as in a study file: '[translation, {name: cutout, size: 8}]'; default: the"
            " data set's own.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=100, help="Number of training images: rows.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, max=100, help="Number of epochs: columns after the first.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The trial's seed.")] = 0,
    data_dir: DataDir = None,
) -> None:
    """Draw training images as networks see them: augmented, epoch by epoch, beside the original."""
    from leadline.data.batches import load
    from leadline.reports.charts.files import check_place, write_drawing
    from leadline.reports.training_images import draw_training_images
    from leadline.study.yaml12 import parse_value

    check_place(figure)
    spec = _spec(data)
    if augment is not None:
        spec = spec.with_(augment=parse_value(augment, "--augment"))
    seen = load(spec, data_dir, seed=seed)
    original = seen if spec.label_noise is None else load(spec.with_(label_noise=None), data_dir, seed=seed)
    write_drawing(draw_training_images(seen, original, samples, epochs, seed), figure)
    typer.echo(f"written: {figure}")


def _spec(data: str) -> "DataSpec":
    from leadline.data.datasets import DataSpec
    from leadline.parts.base import parse
    from leadline.study.yaml12 import parse_value

    return parse(DataSpec, parse_value(data))
