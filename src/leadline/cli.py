"""The command line: parse, call, print. Heavy modules are imported by the commands that need them."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadline.errors import LeadlineError, SpecError

if TYPE_CHECKING:
    from leadline.export import Loaded
    from leadline.spec import ModuleSpec, NetworkSpec

app = typer.Typer(
    name="leadline",
    help="A laboratory for depth in neural networks: compare plain, residual and recurrent networks fairly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Find, download and check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
Runs = Annotated[Path, typer.Option(envvar="LEADLINE_RUNS", help="Folder of the store and the checkpoints.")]
StoreUrl = Annotated[
    str | None, typer.Option("--store", envvar="LEADLINE_STORE", help="SQLAlchemy URL; default: SQLite in RUNS.")
]
DataDir = Annotated[
    Path | None, typer.Option(envvar="LEADLINE_DATA", help="Folder of the data sets; default: the user's cache.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")]
RUNS = Path("runs")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the ready studies, the named networks and the data sets."""
    from leadline.data.catalog import CATALOG
    from leadline.families import FAMILIES
    from leadline.studyfile import ready_studies

    studies = ready_studies()
    if as_json:
        _print_json({"studies": list(studies), "networks": list(FAMILIES), "datasets": list(CATALOG)})
        return
    sections = {
        "studies": studies,
        "networks": {name: (function.__doc__ or "").split("\n")[0] for name, function in FAMILIES.items()},
        "datasets": {name: info.title for name, info in CATALOG.items()},
    }
    for section, entries in sections.items():
        typer.echo(f"{section}:")
        width = max(map(len, entries))
        for name, title in entries.items():
            typer.echo(f"  {name:<{width}}  {title}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a study file, for editors that complete and check YAML."""
    from leadline.study import StudySpec

    _print_json(StudySpec.model_json_schema())


@app.command()
def inspect(
    network: Annotated[str, typer.Argument(help="A network's name (`leadline list`), or package.module:function.")],
    settings: Settings = None,
    input_shape: Annotated[str, typer.Option("--input", help="Channels x height x width.")] = "3x32x32",
    classes: Annotated[int, typer.Option(min=1)] = 10,
    figure: Annotated[Path | None, typer.Option(help="Draw the network into this file: .svg, .pdf or .png.")] = None,
    weights: Annotated[Path | None, typer.Option(help="See that a file of trained weights fits the network.")] = None,
    as_json: Json = False,
) -> None:
    """Show a network's layers, parameters, multiply-adds and memory; draw it."""
    from dataclasses import asdict

    from leadline.nets import build, inspect_network
    from leadline.study import resolve_network

    spec = resolve_network(network, _settings(settings))
    shape = _shape(input_shape)
    info = inspect_network(spec, shape, classes)
    if figure is not None:
        from leadline.drawing import draw, write_drawing

        title = " ".join([network, *(settings or [])])
        write_drawing(draw(_drawable(spec), shape, classes, title, info), figure)
    if weights is not None:
        from leadline.weights import load_weights

        load_weights(build(spec, shape, classes), weights)
    if as_json:
        _print_json({"network": network, "spec": spec.model_dump(mode="json"), **asdict(info)})
        return
    from leadline.console import network_table

    network_table(network, info)


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A ready study's name, or a YAML file.")],
    settings: Settings = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; default: one per core; 0: inside this process.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    as_json: Json = False,
) -> None:
    """Run a study's unfinished trials."""
    from leadline.studyfile import load_study

    expanded = load_study(study, _settings(settings))
    from leadline.console import run_and_show

    outcome = run_and_show(expanded, runs, store_url, data_dir, workers, device, quiet=as_json)
    if as_json:
        _print_json(outcome.to_json())
    else:
        typer.echo(outcome.last_line("" if runs == RUNS else f" --runs {shlex.quote(str(runs))}"))
    if not outcome.complete:
        raise typer.Exit(130 if outcome.interrupted else 1)


@app.command()
def verdict(
    name: Annotated[str, typer.Argument(help="A study that has been run.")],
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Say which arm is better and how sure that is."""
    from leadline.store import Store
    from leadline.study import expand_stored
    from leadline.verdict import find, to_json, to_text

    with Store.open_existing(runs, store_url) as store:
        study = expand_stored(store.study(name).spec)
        findings = find(study, store.trials_frame(name), store.records_frame(name), store.predictions(name))
    if as_json:
        _print_json(to_json(findings))
    else:
        typer.echo(to_text(findings))


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="A study that has been run.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write; default: report/NAME.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
) -> None:
    """Write a study's report: one HTML file; figures also as SVG and PDF, tables as CSV, Markdown and LaTeX."""
    from leadline.report import write
    from leadline.store import Store
    from leadline.study import expand_stored
    from leadline.verdict import find
    from leadline.why import explain

    with Store.open_existing(runs, store_url) as store:
        stored = store.study(name)
        study = expand_stored(stored.spec)
        trials, records = store.trials_frame(name), store.records_frame(name)
        findings = find(study, trials, records, store.predictions(name))
        why = explain(trials, records, store.measurements(name, "flow"))
    path = write(study, findings, trials, records, output or Path("report") / name, why=why)
    typer.echo(f"report: {path}")


@app.command()
def probe(
    trial: Annotated[str, typer.Argument(help="A finished trial's hash, or the beginning of it.")],
    name: Annotated[str, typer.Argument(help="cka, decomposition, hessian, jacobian, landscape, lesion, noise, ...")],
    images: Annotated[int, typer.Option(min=2, help="Test images that the probe sees.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of what the probe draws.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the measured values into this CSV file.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Measure inside a stored trial's network: singular values, lesions, curvature, ..."""
    from leadline.console import progress_bar
    from leadline.probing import PROBES, probe_trial
    from leadline.store import Store

    with Store.open_existing(runs, store_url) as store, progress_bar(name) as progress:
        frame = probe_trial(store, trial, name, images, data_dir, seed, progress)
    if output is None:
        typer.echo(f"{PROBES[name].about}\n")
        typer.echo(frame.to_string(index=False))
        return
    try:
        frame.to_csv(output, index=False)
    except OSError as error:
        raise LeadlineError(f"{output}: cannot be written: {error.strerror or error}") from None
    typer.echo(f"written: {output}")


@app.command()
def predict(
    trial: Annotated[str, typer.Argument(help="A finished trial's hash or the beginning of it, or a saved folder.")],
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG files.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to give for each image.")] = 3,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Say which classes a trained network sees in images, with probabilities."""
    from leadline import export

    loaded = export.load(Path(trial)) if Path(trial).exists() else _trained(trial, runs, store_url, data_dir)
    found = export.predict(loaded, images, top)
    if as_json:
        _print_json(
            [
                {"image": str(one.path), "classes": list(one.classes), "probabilities": list(one.probabilities)}
                for one in found
            ]
        )
        return
    for one in found:
        pairs = zip(one.classes, one.probabilities, strict=True)
        typer.echo(f"{one.path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in pairs))


@app.command("export")
def export_(
    trial: Annotated[str, typer.Argument(help="A finished trial's hash, or the beginning of it.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    formats: Annotated[list[str] | None, typer.Option("--format", help="onnx or pt2, beside safetensors.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write a trained network as safetensors and its specification, ONNX, or torch.export."""
    from leadline import export
    from leadline.errors import unknown

    writers = {"onnx": export.to_onnx, "pt2": export.to_torch_export}
    for name in formats or []:
        if name not in writers:
            raise SpecError(unknown("--format", name, writers))
    loaded = _trained(trial, runs, store_url, data_dir)
    written = export.save(loaded, output)
    written += [writers[name](loaded.model, loaded.input_shape, output / f"model.{name}") for name in formats or []]
    for path in written:
        typer.echo(f"written: {path}")


@data_app.command("get")
def data_get(name: str, data_dir: DataDir = None) -> None:
    """Download a data set, unless it is there."""
    from leadline.data.files import fetch

    fetch(_dataset(name), data_dir)
    data_check(name, data_dir)


@data_app.command("check")
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


def _trained(trial: str, runs: Path, store_url: str | None, data_dir: Path | None) -> "Loaded":
    from leadline.export import from_trial
    from leadline.store import Store

    with Store.open_existing(runs, store_url) as store:
        return from_trial(store, trial, data_dir)


def _drawable(spec: "NetworkSpec | ModuleSpec") -> "NetworkSpec":
    from leadline.spec import ModuleSpec

    if isinstance(spec, ModuleSpec):
        raise SpecError(
            f"--figure: {spec.module} is a module of one's own; only networks of Leadline's parts are drawn"
        )
    return spec


def _settings(pairs: list[str] | None) -> dict[str, object]:
    from leadline.studyfile import parse_value

    settings = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise SpecError(f"--set {pair!r}: expected KEY=VALUE, such as training.epochs=3")
        settings[key] = parse_value(value)
    return settings


def _shape(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SpecError(f"--input {text!r}: expected channels x height x width, such as 1x28x28")
    channels, height, width = map(int, parts)
    return channels, height, width


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def main() -> None:
    """Run the command line; an error that the user can mend becomes one line and exit code 1."""
    try:
        app()
    except LeadlineError as error:
        typer.echo(f"leadline: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except OSError as error:  # a full disk, a name that is too long, a file that may not be read
        typer.echo(f"leadline: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
