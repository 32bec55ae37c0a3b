"""Commands for the results of studies: verdicts, reports, trained networks."""

import atexit
import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leadline.cli.names import probe_names
from leadline.cli.options import A_TRIAL, RUNS, Averaged, DataDir, Json, Runs, StoreUrl, Trial, print_json
from leadline.errors import DataError, LeadlineError, SpecError

if TYPE_CHECKING:
    from leadline.api.export import Loaded

app = typer.Typer()


@app.command()
def verdict(
    name: Annotated[str, typer.Argument(help="Name of a study that has been run.")],
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Show which arms are better, by how much, and with what confidence."""
    _collect_rarely()
    from leadline.analysis.verdict import to_blocks
    from leadline.api import Results
    from leadline.text.terminal import print_text

    found = Results.open(name, runs, store=store_url).verdict()
    if as_json:
        print_json(found.to_json())
    else:
        following = f"Next: leadline report {name}, leadline trials {name}, or leadline show {name}/ARM/SEED"
        print_text(*to_blocks(found.findings), following)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of a study that has been run.")],
    output: Annotated[str | None, typer.Option(help="Output folder or URL; default: report/NAME.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write a study's report: one HTML file, plus figures as SVG and PDF and tables as CSV, Markdown and LaTeX."""
    _collect_rarely()
    from leadline.analysis.verdict import provisional_sentence
    from leadline.api import Results
    from leadline.store import Store
    from leadline.store.schema import SETTLED

    path = Results.open(name, runs, store=store_url, data_dir=data_dir).report(output or f"report/{name}")
    typer.echo(f"report: {path}")
    with Store.open_existing(runs, store_url) as store:
        counts = store.counts(name)
    if unfinished := sum(count for state, count in counts.items() if state not in SETTLED):
        typer.echo(provisional_sentence(unfinished, sum(counts.values())))


@app.command()
def probe(
    trial: Trial,
    name: Annotated[
        str,
        typer.Argument(
            help="cka, hessian, jacobian, lesion, ..., or package.module:function.", autocompletion=probe_names
        ),
    ],
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="TRIAL", help="Another trial to measure as well, for comparison; repeatable."),
    ] = None,
    at_initialisation: Annotated[
        bool,
        typer.Option(
            "--at-initialisation", help="Measure the network before the first training step, and before pre-training."
        ),
    ] = False,
    images: Annotated[int, typer.Option(min=2, help="Number of test images given to the probe.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the probe.")] = 0,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Draw the measurements into this file: .svg, .png, .pdf, .html or .json; further figures get the same"
            " name with -2, -3, ..."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the measured values into this CSV file.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Run a probe on the networks of stored trials: singular values, lesions, curvature, ..."""
    if figure is not None:
        from leadline.reports.charts.files import check_place

        check_place(figure)
    from leadline.api.probing import probe_trials
    from leadline.probes.snapshots import find_probe
    from leadline.store import Store
    from leadline.text.terminal import progress_bar

    found = find_probe(name)
    with Store.open_existing(runs, store_url) as store, progress_bar(name) as progress:
        trials = [trial, *(beside or [])]
        frame = probe_trials(store, trials, found, images, data_dir, seed, progress, at_initialisation)
    written: list[Path] = []
    if figure is not None:
        from leadline.reports.charts.files import write_figures
        from leadline.reports.charts.probes import figures

        written += write_figures(figures(found, frame), figure)
    if output is not None:
        from leadline.text.tables import frame_to_csv

        try:
            output.write_text(frame_to_csv(frame), encoding="utf-8", newline="")
        except OSError as error:
            raise LeadlineError(f"{output}: cannot be written: {error.strerror or error}") from None
        written.append(output)
    if as_json:
        print_json({"probe": name, "description": found.describe(), "values": frame.to_dict("records")})
    elif not written:
        from leadline.text import plural
        from leadline.text.tables import from_frame
        from leadline.text.terminal import print_text

        own = [key for key in frame if key not in ("arm", "base", "seed", "epoch")]
        tables = [
            from_frame(part[own], name, f"{arm}, seed {seed}, after {plural(int(str(epoch)), 'epoch')}")
            for (arm, seed, epoch), part in frame.groupby(["arm", "seed", "epoch"], sort=False)
        ]
        print_text(found.describe(), *tables)
    for path in written:
        typer.echo(f"written: {path}", err=as_json)


@app.command()
def predict(
    trial: Annotated[
        str,
        typer.Argument(help=f"{A_TRIAL}; or a folder written by `leadline export`."),
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files, such as JPEG or PNG, of any size.")],
    top: Annotated[int, typer.Option(min=1, help="Number of most probable classes to print for each image.")] = 3,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
    averaged: Averaged = False,
    as_json: Json = False,
) -> None:
    """Classify images with a trained network and print class probabilities.

    Images are prepared as in evaluation. For a network trained on image files, they are resized to the shorter side of
    its data, and the centre crop is used; for others, they are resized to the input of the network without keeping the
    aspect ratio. An image that cannot be read is reported, and the exit code is then 1.
    """
    from leadline.api import export

    if Path(trial).exists():
        if averaged:
            raise SpecError(f"--averaged: is for trials; {trial} holds the weights that were exported")
        loaded = export.load(Path(trial))
    else:
        loaded = _load_trained(trial, runs, store_url, data_dir, averaged)
    failed: list[DataError] = []
    found = export.predict(loaded, images, top, failed.append)
    if as_json:
        print_json(
            [
                {
                    "image": str(one.path),
                    "classes": list(one.classes),
                    "names": list(one.names),
                    "probabilities": list(one.probabilities),
                    "prepared": loaded.preparation,
                }
                for one in found
            ]
        )
    else:
        from leadline.text.terminal import print_text

        for one in found:
            pairs = zip(one.names, one.probabilities, strict=True)
            print_text(f"{one.path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in pairs))
    for error in failed:
        typer.echo(f"leadline: {error}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command("export")
def export_(
    trial: Trial,
    output: Annotated[str, typer.Option(help="Output folder or URL.")],
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="Additional format besides safetensors: onnx or pt2.")
    ] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
    averaged: Averaged = False,
) -> None:
    """Export a trained network as safetensors with its specification, and optionally as ONNX or torch.export."""
    from leadline.api import export
    from leadline.errors import unknown
    from leadline.store.artifacts import destination

    writers = {"onnx": export.to_onnx, "pt2": export.to_torch_export}
    for name in formats or []:
        if name not in writers:
            raise SpecError(unknown("--format", name, writers))
    loaded = _load_trained(trial, runs, store_url, data_dir, averaged)
    with destination(output) as folder:
        written = export.save(loaded, folder)
        written += [writers[name](loaded.model, loaded.input_shape, folder / f"model.{name}") for name in formats or []]
    for path in written:
        typer.echo(f"written: {output.rstrip('/')}/{path.relative_to(folder)}")
    training = None if loaded.trial is None else loaded.trial.training
    if training is not None and (training.early_stopping or training.averaging):
        which = "the last epoch" if training.early_stopping is None else "the best epoch on the validation images"
        beside = "" if training.averaging is None else ", not their average (--averaged)"
        kept = "the average at the end of training" if averaged else f"those after {which}{beside}"
        typer.echo(f"The weights are {kept}.")


@app.command("export-runs")
def export_runs(
    name: Annotated[str, typer.Argument(help="Name of a study that has been run.")],
    to: Annotated[str, typer.Option(metavar="TRACKER", help="tensorboard, wandb (offline) or mlflow.")],
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder in which the tracker keeps runs; created if missing.")
    ],
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
) -> None:
    """Write a study's runs to an experiment tracker: values by epoch, specifications, and the verdict.

    Runs that are there and have not changed are left alone, others are written anew.
    """
    from leadline.api import Results

    exported = Results.open(name, runs, store=store_url).export_runs(to, output)
    typer.echo(exported.line())


def _collect_rarely() -> None:
    """Look for reference cycles less often, and not at exit: each look goes through all that a store holds."""
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


def _load_trained(trial: str, runs: Path, store_url: str | None, data_dir: Path | None, averaged: bool) -> "Loaded":
    from leadline.api.export import from_trial
    from leadline.store import Store

    with Store.open_existing(runs, store_url) as store:
        return from_trial(store, trial, data_dir, averaged)
