"""Commands that plan and run studies, on this machine and on clusters."""

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leadline.cli.names import study_names_and_files
from leadline.cli.options import (
    RUNS,
    Artifacts,
    CheckpointEvery,
    DataDir,
    Device,
    Devices,
    Json,
    Runs,
    Settings,
    StoreUrl,
    TrialsPerWorker,
    print_json,
    settings_of,
)
from leadline.errors import LeadlineError, SpecError, absence

if TYPE_CHECKING:
    from leadline.specs.study import StudySpec
    from leadline.study.expand import ExpandedStudy

app = typer.Typer()

ReadyStudy = Annotated[
    str,
    typer.Argument(
        help="Name of a ready study (`leadline list`), or a YAML file.", autocompletion=study_names_and_files
    ),
]


@app.command()
def run(
    study: ReadyStudy,
    settings: Settings = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Number of worker processes; default: as many as fit; 0: train in this process."),
    ] = None,
    trials_per_worker: TrialsPerWorker = 1,
    device: Device = "auto",
    executor: Annotated[
        str, typer.Option(help="local: processes on this machine; inprocess: this process; ray: a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Address of the Ray cluster; default: RAY_ADDRESS, else a cluster of this machine only."),
    ] = None,
    cpus: Annotated[float, typer.Option("--cpus-per-trial", help="CPUs per trial on Ray.")] = 1.0,
    gpus: Annotated[
        float, typer.Option("--gpus-per-trial", help="GPUs per trial on Ray; with 0.25, four trials share one GPU.")
    ] = 0.0,
    checkpoint_every: CheckpointEvery = "10m",
    devices: Devices = None,
    artifacts: Artifacts = None,
    new_name: Annotated[str | None, typer.Option("--as", help="Run the study under this name.")] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="If other results are stored under the study's name, keep them under another name."
        ),
    ] = False,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER", help="Write the runs there while they train: tensorboard, wandb (offline) or mlflow."
        ),
    ] = None,
    log_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of --log; default: TRACKER in the runs folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a study, or continue one that was interrupted."""
    from leadline.api import Study

    changes = settings_of(settings) | ({"name": new_name} if new_name else {})
    loaded = Study.load(study, changes)
    from leadline.distributed.torchrun import Torchrun, check_torchrun
    from leadline.running.clusters import on_ray
    from leadline.running.stopping import Terminated, sigterm_as_interrupt
    from leadline.running.trial import assist

    if executor == "inprocess":
        workers = 0
    cluster = on_ray(executor, address, cpus, gpus, workers)
    device = device if cluster is None else cluster.device(device)
    check_torchrun(devices or loaded.expanded.spec.devices)
    if (torchrun := Torchrun.current()) is not None:
        workers = 0
        if torchrun.rank:
            assist(torchrun, device)
            return
    try:
        with sigterm_as_interrupt() as stop:
            outcome = loaded.run(
                runs,
                store=store_url,
                data_dir=data_dir,
                workers=workers,
                device=device,
                devices=devices,
                checkpoint_every=checkpoint_every,
                artifacts=artifacts,
                progress=not as_json,
                executor=cluster,
                replace=replace,
                trials_per_worker=trials_per_worker,
                log=log,
                log_folder=log_folder,
            ).outcome
    except Terminated:
        raise typer.Exit(143) from None
    finally:
        if torchrun is not None:
            torchrun.end_tasks()
    assert outcome is not None  # of results that a run returns
    if as_json:
        print_json(outcome.to_json())
    else:
        typer.echo(outcome.last_line("" if runs == RUNS else f" --runs {shlex.quote(str(runs))}"))
    if not outcome.complete:
        raise typer.Exit((143 if stop.asked else 130) if outcome.interrupted else 1)


@app.command()
def worker(
    study: Annotated[
        str | None,
        typer.Argument(
            help="A study in the store, a ready study or a YAML file; default: all studies in the store.",
            autocompletion=study_names_and_files,
        ),
    ] = None,
    settings: Settings = None,
    until_empty: Annotated[
        bool,
        typer.Option(
            "--until-empty", help="Stay until every trial has ended, to take over trials that other workers lose."
        ),
    ] = False,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    trials_per_worker: TrialsPerWorker = 1,
    device: Device = "auto",
    checkpoint_every: CheckpointEvery = "10m",
    devices: Devices = None,
    artifacts: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Run trials from a store until none is left; any number of workers can share a store."""
    from leadline.distributed.torchrun import Torchrun
    from leadline.running.checkpoints import Interval
    from leadline.running.clusters.entering import enter
    from leadline.running.clusters.worker import take_trials
    from leadline.running.job import Job
    from leadline.running.trial import assist

    every = Interval.parse(checkpoint_every)
    if (torchrun := Torchrun.current()) is not None and torchrun.rank:
        assist(torchrun, device)
        return
    try:
        check = partial(_check_gang, trials_per_worker, devices)
        name = None if study is None else enter(study, settings_of(settings), runs, store_url, data_dir, check)
        url = _folder(artifacts)
        job = Job(
            name or "", runs, store_url, data_dir, device, 1, every, devices, url, trials_at_once=trials_per_worker
        )
        tally = take_trials(job, name, until_empty)
    finally:
        if torchrun is not None:
            torchrun.end_tasks()
    if as_json:
        print_json(tally.to_json())
    else:
        typer.echo(tally.line())
    if tally.stopped is not None:
        raise typer.Exit(128 + tally.stopped)


@app.command()
def slurm(
    study: Annotated[
        str,
        typer.Argument(
            help="A study in the store, a ready study or a YAML file.", autocompletion=study_names_and_files
        ),
    ],
    settings: Settings = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of jobs in the array, each of which runs one worker.")
    ] = 1,
    time: Annotated[str, typer.Option(metavar="H:MM:SS", help="Time limit per job.")] = "1:00:00",
    cpus: Annotated[int, typer.Option(min=1, help="CPUs per job.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs per job.")] = 0,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory per job, such as 8G.")] = "4G",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Any other option of sbatch, such as partition=gpu; repeatable."),
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(metavar="COMMAND", help="Shell command to run before each worker; repeatable.")
    ] = None,
    print_: Annotated[bool, typer.Option("--print", help="Print the sbatch script instead of submitting it.")] = False,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    trials_per_worker: TrialsPerWorker = 1,
    checkpoint_every: CheckpointEvery = "10m",
    devices: Devices = None,
    artifacts: Artifacts = None,
) -> None:
    """Distribute a study over the jobs of a Slurm array that share a PostgreSQL store."""
    from leadline.parts.trust import trusted_names
    from leadline.running.checkpoints import Interval
    from leadline.running.clusters.entering import enter
    from leadline.running.clusters.slurm import Resources, check_store, script, submit
    from leadline.running.job import Job

    every = Interval.parse(checkpoint_every)
    resources = Resources.of(workers, time, cpus, gpus, memory, option or [], setup or [])
    check_store(store_url, runs, workers)
    check = partial(_check_gang, trials_per_worker, devices)
    name = enter(study, settings_of(settings), runs, store_url, data_dir, check)
    job = Job(
        name,
        runs,
        store_url,
        data_dir,
        "cuda" if gpus else "cpu",
        1,
        every,
        devices,
        _folder(artifacts),
        trials_at_once=trials_per_worker,
        trusted=trusted_names(),
    )
    if print_:
        typer.echo(script(job, resources), nl=False)
        return
    numbers = ", ".join(one.job_id for one in submit(job, resources))
    typer.echo(f"{name}: {workers} workers submitted: {numbers}; their logs are in {runs / 'slurm'}")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the new study.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="STUDY", help="Begin with this ready study, YAML file or study in the store."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: NAME.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
) -> None:
    """Write a study file to change: commented, with the options that it does not use."""
    from leadline.study.load import load_study
    from leadline.study.ready import is_study, ready_studies
    from leadline.study.writing import FIRST, new_study_file

    if name in ready_studies():
        raise SpecError(f"{name} is the name of a ready study; choose another")
    if source is None:
        spec = FIRST
    elif is_study(source):
        spec = load_study(source).spec
    else:
        spec = _read_stored(source, runs, store_url)
    text = new_study_file(spec.with_(name=name))
    path = Path(f"{name}.yaml") if output is None else output
    if path.is_dir():
        raise LeadlineError(f"{path}: {absence(path, 'file')}; choose another with --output")
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise LeadlineError(
            f"{path}: exists; choose another file with --output, or overwrite it with --force"
        ) from None
    except OSError as error:
        raise LeadlineError(f"{path}: cannot be written: {error.strerror or error}") from None
    shown = shlex.quote(str(path))
    typer.echo(f"written: {path}\nNext: change it, then leadline plan {shown}, then leadline run {shown}")


def _read_stored(name: str, runs: Path, store_url: str | None) -> "StudySpec":
    """Return the specification of a study in the store.

    Raises:
        SpecError: there is no store, and no ready study of that name.
        StoreError: the store has no such study.
    """
    from leadline.store import Store
    from leadline.study.load import load_study

    if not Store.exists(runs, store_url):
        return load_study(name).spec
    with Store.open_existing(runs, store_url) as store:
        return store.study(name).expand().spec


@app.command()
def plan(
    study: ReadyStudy,
    settings: Settings = None,
    pilot: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY", help="A completed study whose paired differences are used to estimate the number of seeds."
        ),
    ] = None,
    sd: Annotated[
        list[float] | None,
        typer.Option(metavar="POINTS", help="Standard deviation of paired differences, in points; repeatable."),
    ] = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of worker processes; default: as many as fit.")
    ] = None,
    device: Device = "auto",
    time: Annotated[
        bool, typer.Option("--time", help="Time a few training steps of each network, which takes up to minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Estimate the cost of a study before it runs: operations, hours on this machine, memory, disk, seeds."""
    from leadline.api import Study
    from leadline.study.planning.words import to_blocks
    from leadline.text.terminal import print_text

    planned = Study.load(study, settings_of(settings)).plan(
        runs,
        store=store_url,
        data_dir=data_dir,
        workers=workers,
        device=device,
        pilot=pilot,
        deviations=sd or (),
        time=time,
    )
    if as_json:
        print_json(planned.to_json())
    else:
        print_text(*to_blocks(planned.plan))


@app.command()
def variance(
    study: ReadyStudy,
    settings: Settings = None,
    arm: Annotated[str | None, typer.Option(help="The only arm, without its levels; default: all arms.")] = None,
    levels: Annotated[
        int, typer.Option(help="Seeds of each source of randomness, 3, 5, 7, 11 or 13; its square: trials of each arm.")
    ] = 5,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the shares into this file: .svg, .png, .pdf, .html or .json.")
    ] = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Number of worker processes; default: as many as fit; 0: this process.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show where the spread between seeds comes from: weights, order, augmentation, noise, images.

    Runs a study of its own, STUDY.variance, or continues it.
    """
    from leadline.api import Study

    if figure is not None:
        from leadline.reports.charts.files import check_place

        check_place(figure)
    found = Study.load(study, settings_of(settings)).variance(
        arm,
        levels,
        runs,
        store=store_url,
        data_dir=data_dir,
        workers=workers,
        device=device,
        progress=not as_json,
    )
    if figure is not None:
        from leadline.reports.charts.files import write_figures

        write_figures([found.figure], figure)
    if as_json:
        print_json(found.to_json())
    else:
        from leadline.analysis.variance import variance_blocks
        from leadline.text.terminal import print_text

        print_text(*variance_blocks(found.findings, found.repeated))
    if figure is not None:
        typer.echo(f"written: {figure}", err=as_json)


def _check_gang(trials_per_worker: int, devices: int | None, study: "ExpandedStudy") -> None:
    """Check that a worker can train so many trials of a study at once."""
    from leadline.running.gang import check_gang

    if trials_per_worker > 1:
        check_gang(study, trials_per_worker, devices, None)


def _folder(artifacts: str | None) -> str | None:
    from leadline.store.artifacts import folder_url

    return None if artifacts is None else folder_url(artifacts)
