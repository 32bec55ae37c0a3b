"""The command line: parse, call, print. Heavy modules are imported by the commands that need them."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadline.errors import LeadlineError, SpecError
from leadline.theory.commands import app as theory_app

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
app.add_typer(theory_app, name="theory", help="Depth in theory, beside what is measured.")

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
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
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
    from leadline.spec.study import StudySpec

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


@app.command("predict-depth")
def predict_depth(
    network: Annotated[str, typer.Argument(help="A network's name (`leadline list`).")],
    settings: Settings = None,
    input_shape: Annotated[str, typer.Option("--input", help="Channels x height x width.")] = "3x32x32",
    as_json: Json = False,
) -> None:
    """Predict, from mean-field theory, how deep signals and gradients reach before training."""
    from leadline.study import resolve_network
    from leadline.theory.prediction import predict_depth as predicted

    found = predicted(resolve_network(network, _settings(settings)), _shape(input_shape))
    if as_json:
        _print_json(found.to_json())
    else:
        typer.echo(found.words())


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
    device: Device = "auto",
    executor: Annotated[
        str, typer.Option(help="local: processes of this machine; inprocess: this process; ray: a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster; default: RAY_ADDRESS, else one of this machine alone.")
    ] = None,
    cpus: Annotated[float, typer.Option("--cpus-per-trial", help="CPUs of a trial on Ray.")] = 1.0,
    gpus: Annotated[
        float, typer.Option("--gpus-per-trial", help="GPUs of a trial on Ray; 0.25: four share one.")
    ] = 0.0,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="10m|500s|200steps|epoch", help="Between checkpoints of a trial within an epoch.")
    ] = "10m",
    devices: Devices = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Run a study's unfinished trials."""
    from leadline.studyfile import load_study

    expanded = load_study(study, _settings(settings))
    from leadline.checkpoints import Interval
    from leadline.clusters import on_ray
    from leadline.console import run_and_show
    from leadline.devices import check_torchrun, dismiss, under_torchrun
    from leadline.run import assist
    from leadline.stopping import Terminated, sigterm_as_interrupt

    if executor == "inprocess":
        workers = 0
    cluster = on_ray(executor, address, cpus, gpus, workers)
    device = device if cluster is None else cluster.device(device)
    every = Interval.parse(checkpoint_every)
    check_torchrun(devices or expanded.spec.devices)
    if (place := under_torchrun()) is not None:
        workers = 0
        if place.rank:
            assist(place, device)
            return
    try:
        with sigterm_as_interrupt() as stop:
            outcome = run_and_show(
                expanded, runs, store_url, data_dir, workers, device, as_json, cluster, every, devices, artifacts
            )
    except Terminated:
        raise typer.Exit(143) from None
    finally:
        if place is not None:
            dismiss(place)
    if as_json:
        _print_json(outcome.to_json())
    else:
        typer.echo(outcome.last_line("" if runs == RUNS else f" --runs {shlex.quote(str(runs))}"))
    if not outcome.complete:
        raise typer.Exit((143 if stop.asked else 130) if outcome.interrupted else 1)


@app.command()
def worker(
    study: Annotated[
        str | None,
        typer.Argument(help="A study of the store, a ready study or a YAML file; default: all of the store's."),
    ] = None,
    settings: Settings = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="Stay until every trial has ended, to take over what others lose.")
    ] = False,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    device: Device = "auto",
    devices: Devices = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Take trials from a store until none is left: one of many that share it."""
    from leadline.artifacts import folder_url
    from leadline.clusters.entering import enter
    from leadline.clusters.worker import take_trials
    from leadline.run import Job

    name = None if study is None else enter(study, _settings(settings), runs, store_url, data_dir)
    url = None if artifacts is None else folder_url(artifacts)
    job = Job(name or "", runs, store_url, data_dir, device, devices=devices, artifacts=url)
    tally = take_trials(job, name, until_empty)
    if as_json:
        _print_json(tally.to_json())
    else:
        typer.echo(tally.line())
    if tally.stopped:
        raise typer.Exit(143)


@app.command()
def slurm(
    study: Annotated[str, typer.Argument(help="A study of the store, a ready study or a YAML file.")],
    settings: Settings = None,
    workers: Annotated[int, typer.Option(min=1, help="Jobs of the array: one worker each.")] = 1,
    time: Annotated[str, typer.Option(metavar="H:MM:SS", help="Time limit of a job.")] = "1:00:00",
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of a job.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of a job.")] = 0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of a job, such as 8G.")] = "4G",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Any other option of sbatch, such as partition=gpu; repeatable."),
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(metavar="COMMAND", help="Run before each worker; repeatable.")
    ] = None,
    print_: Annotated[bool, typer.Option("--print", help="Print a script for sbatch, and submit nothing.")] = False,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
) -> None:
    """Share a study among the jobs of a Slurm array, through PostgreSQL."""
    from leadline.clusters.entering import enter
    from leadline.clusters.slurm import Resources, check_store, script, submit
    from leadline.run import Job

    resources = Resources.of(workers, time, cpus, gpus, memory, option or [], setup or [])
    check_store(store_url, runs, workers)
    name = enter(study, _settings(settings), runs, store_url, data_dir)
    job = Job(name, runs, store_url, data_dir, "cuda" if gpus else "cpu")
    if print_:
        typer.echo(script(job, resources), nl=False)
        return
    numbers = ", ".join(one.job_id for one in submit(job, resources))
    typer.echo(f"{name}: {workers} workers submitted: {numbers}; what they say lies in {runs / 'slurm'}")


@app.command()
def plan(
    study: Annotated[str, typer.Argument(help="A ready study's name, or a YAML file.")],
    settings: Settings = None,
    pilot: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="A study that has been run, whose differences say how many seeds."),
    ] = None,
    sd: Annotated[
        list[float] | None,
        typer.Option(metavar="POINTS", help="Standard deviation of paired differences, in points; repeatable."),
    ] = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what a study will take before it runs: operations, hours here, memory, disk, seeds."""
    from leadline import planning, plantext, seedplan
    from leadline.console import progress_bar
    from leadline.matching import matched
    from leadline.studyfile import load_study

    expanded = matched(load_study(study, _settings(settings)), data_dir)
    seeds = seedplan.seeds_by_deviation(expanded, sd or [])
    if pilot is not None:
        from leadline.store import Store
        from leadline.study import expand_stored
        from leadline.verdict import find

        with Store.open_existing(runs, store_url) as store:
            piloted = expand_stored(store.study(pilot).spec)
            shown = find(piloted, store.trials_frame(pilot), store.records_frame(pilot), {})
        seeds += seedplan.seeds_by_pilot(expanded, shown)
    with progress_bar("timing networks") as progress:
        found = planning.plan(expanded, runs, data_dir, device, workers, seeds=seeds, progress=progress)
    if as_json:
        _print_json(plantext.to_json(found))
    else:
        typer.echo(plantext.to_text(found))


@app.command()
def verdict(
    name: Annotated[str, typer.Argument(help="A study that has been run.")],
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Say which arm is better and how sure that is."""
    from dataclasses import replace

    from leadline.store import Store
    from leadline.study import expand_stored
    from leadline.tuning import tuning_of
    from leadline.verdict import find, to_json, to_text

    with Store.open_existing(runs, store_url) as store:
        study = expand_stored(store.study(name).spec)
        findings = find(study, store.trials_frame(name), store.records_frame(name), store.predictions(name))
        if (tuning := tuning_of(store, study)) is not None:  # its first sentence is in the headline
            findings = replace(findings, notes=(*tuning.sentences[1:], *findings.notes))
    if as_json:
        _print_json(to_json(findings))
    else:
        typer.echo(to_text(findings))


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="A study that has been run.")],
    output: Annotated[str | None, typer.Option(help="Folder or URL to write; default: report/NAME.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write a study's report: one HTML file; figures also as SVG and PDF, tables as CSV, Markdown and LaTeX."""
    from leadline.artifacts import destination
    from leadline.reporting import write_report
    from leadline.store import Store

    place = output or f"report/{name}"
    with Store.open_existing(runs, store_url) as store, destination(place) as folder:
        path = write_report(store, name, folder, data_dir)
    typer.echo(f"report: {place.rstrip('/')}/{path.relative_to(folder)}")


@app.command()
def probe(
    trial: Annotated[str, typer.Argument(help="A finished trial's hash, or the beginning of it.")],
    name: Annotated[str, typer.Argument(help="cka, decomposition, hessian, jacobian, landscape, lesion, noise, ...")],
    beside: Annotated[
        list[str] | None, typer.Option(metavar="TRIAL", help="Another trial, to compare; repeatable.")
    ] = None,
    at_initialisation: Annotated[
        bool, typer.Option("--at-initialisation", help="Measure the network as it was before the first step.")
    ] = False,
    images: Annotated[int, typer.Option(min=2, help="Test images that the probe sees.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of what the probe draws.")] = 0,
    figure: Annotated[
        Path | None,
        typer.Option(
            help="Draw what was measured into this file: .svg, .png, .pdf, .html or .json; more than one"
            " figure: also into the same name with -2, -3, ..."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the measured values into this CSV file.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Measure inside stored trials' networks: singular values, lesions, curvature, ..."""
    if figure is not None:
        from leadline.chartfiles import check_place

        check_place(figure)
    from leadline.console import progress_bar
    from leadline.probes.catalog import PROBES
    from leadline.probing import probe_trials
    from leadline.store import Store

    with Store.open_existing(runs, store_url) as store, progress_bar(name) as progress:
        trials = [trial, *(beside or [])]
        frame = probe_trials(store, trials, name, images, data_dir, seed, progress, at_initialisation)
    written: list[Path] = []
    if figure is not None:
        from leadline.chartfiles import write_figures
        from leadline.probefigures import figures

        written += write_figures(figures(name, frame), figure)
    if output is not None:
        try:
            frame.to_csv(output, index=False)
        except OSError as error:
            raise LeadlineError(f"{output}: cannot be written: {error.strerror or error}") from None
        written.append(output)
    if not written:
        typer.echo(f"{PROBES[name].about}\n")
        typer.echo(frame.to_string(index=False))
    for path in written:
        typer.echo(f"written: {path}")


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
    output: Annotated[str, typer.Option(help="Folder or URL to write.")],
    formats: Annotated[list[str] | None, typer.Option("--format", help="onnx or pt2, beside safetensors.")] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write a trained network as safetensors and its specification, ONNX, or torch.export."""
    from leadline import export
    from leadline.artifacts import destination
    from leadline.errors import unknown

    writers = {"onnx": export.to_onnx, "pt2": export.to_torch_export}
    for name in formats or []:
        if name not in writers:
            raise SpecError(unknown("--format", name, writers))
    loaded = _trained(trial, runs, store_url, data_dir)
    with destination(output) as folder:
        written = export.save(loaded, folder)
        written += [writers[name](loaded.model, loaded.input_shape, folder / f"model.{name}") for name in formats or []]
    for path in written:
        typer.echo(f"written: {output.rstrip('/')}/{path.relative_to(folder)}")


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
