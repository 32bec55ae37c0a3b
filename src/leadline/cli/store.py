"""Commands that list, name, remove, check and back up what a store holds."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadline.cli.options import RUNS, Artifacts, Json, Runs, StoreUrl, print_json

if TYPE_CHECKING:
    from leadline.store import Store, TrialRecord

app = typer.Typer()

SHORT = 12
"""Characters of a hash in lists; any unambiguous beginning names a trial."""

StudyName = Annotated[str, typer.Argument(help="Name of a study in the store.")]


@app.command()
def studies(runs: Runs = RUNS, store_url: StoreUrl = None, as_json: Json = False) -> None:
    """List the studies in a store: their trials by state, their age, and the size of their checkpoints."""
    from leadline.store import Store
    from leadline.text import byte_size
    from leadline.text.tables import Column, Table, plain
    from leadline.text.terminal import print_text

    with Store.open_existing(runs, store_url) as store:
        found, sizes = store.studies(), _sizes(store)
    rows = [
        {
            "study": one.name,
            "title": one.title,
            "created": one.created.isoformat(timespec="seconds"),
            "trials": {state: count for state, count in one.counts.items() if count},
            "bytes": sizes.get(one.name, 0),
        }
        for one in found
    ]
    if as_json:
        print_json(rows)
        return
    columns = (
        Column("Study", ("study",), plain, numeric=False),
        Column("Trials", ("trials",), _counted, numeric=False),
        Column("Created", ("created",), lambda text: text[:16].replace("T", " "), numeric=False),
        Column("Checkpoints", ("bytes",), byte_size),
        Column("Title", ("title",), plain, numeric=False),
    )
    print_text(Table("studies", "", columns, tuple(rows)) if rows else "no studies")


@app.command()
def trials(study: StudyName, runs: Runs = RUNS, store_url: StoreUrl = None, as_json: Json = False) -> None:
    """List a study's trials: hash, arm, seed, state, training time and the first line of an error."""
    from leadline.store import Store
    from leadline.text import clock, join, plural
    from leadline.text.tables import Column, Table, plain
    from leadline.text.terminal import print_text

    with Store.open_existing(runs, store_url) as store:
        frame = store.trials_frame(study, ("trial", "arm", "seed", "state", "seconds", "error"))
    rows = [
        {
            **{name: row[name] for name in ("trial", "arm", "seed", "state")},
            "seconds": None if row["seconds"] != row["seconds"] else row["seconds"],
            "error": (row["error"] or "").split("\n")[0] or None,
        }
        for row in frame.to_dict("records")
    ]
    if as_json:
        print_json(rows)
        return
    columns = (
        Column("Trial", ("trial",), lambda trial: trial[:SHORT], numeric=False),
        Column("Arm", ("arm",), plain, numeric=False),
        Column("Seed", ("seed",), plain),
        Column("State", ("state",), plain, numeric=False),
        Column("Time", ("seconds",), lambda seconds: plain(seconds) if seconds is None else clock(seconds)),
        Column("Error", ("error",), lambda error: error or "", numeric=False),
    )
    ahead = {state: sum(row["state"] == state for row in rows) for state in ("waiting", "running")}
    said = join([f"{count} {state}" for state, count in ahead.items() if count])
    missing = [f"Missing: {sum(ahead.values())} of {plural(len(rows), 'trial')} ({said})."] if said else []
    print_text(Table("trials", "", columns, tuple(rows)), *missing)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A study in the store, a ready study, a YAML file, or a trial: STUDY/ARM/SEED or the beginning of its"
            " hash."
        ),
    ],
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Show a study as a YAML file that can be run again, or what a store holds of a trial.

    What the store knows of a study is printed below it, as comments. A study in the store is shown rather than a ready
    study of the same name.
    """
    from leadline.errors import StoreError, nearest
    from leadline.store import Store
    from leadline.study.ready import is_study, ready_studies

    if is_study(name) and not Store.exists(runs, store_url):
        _show_unstored(name, as_json)
        return
    try:
        with Store.open_existing(runs, store_url) as store:
            if any(one.name == name for one in store.studies()):
                _show_stored(store, name, as_json)
            elif is_study(name):
                _show_unstored(name, as_json)
            else:
                shown = _trial_values(store, store.trial(name))
                if as_json:
                    print_json(shown)
                else:
                    typer.echo("\n".join(_value_lines(shown)))
    except StoreError as error:
        near = None if is_study(name) else nearest(name, ready_studies())
        if near is None:
            raise
        raise StoreError(f"{error}; or did you mean the ready study {near!r}?") from None


@app.command()
def rename(
    study: StudyName,
    new: Annotated[str, typer.Argument(help="Its new name.")],
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
) -> None:
    """Give a study another name; its trials and results stay with it."""
    with _to_change(runs, store_url) as store:
        store.rename_study(study, new)
    typer.echo(f"renamed: {study} is now {new}")


@app.command()
def delete(study: StudyName, runs: Runs = RUNS, store_url: StoreUrl = None) -> None:
    """Remove a study from the store; its trials stay until `leadline clean`, for studies that contain them."""
    with _to_change(runs, store_url) as store:
        store.delete_study(study)
        orphans = sum(not one.studies for one in store.files())
    rest = f"; {orphans} trials belong to no study now, `leadline clean` removes them" if orphans else ""
    typer.echo(f"deleted: {study}{rest}")


@app.command()
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    artifacts: Artifacts = None,
) -> None:
    """Remove trials that no study contains, with their results, and checkpoints that no trial needs."""
    from leadline.store.artifacts import folder_url
    from leadline.store.cleaning import find_strays
    from leadline.text import byte_size, plural

    with _to_change(runs, store_url) as store:
        files = store.files()
        orphans = [one for one in files if one.is_orphan]
        strays = find_strays(store.checkpoints, files)
        paths = [*strays, *(path for one in orphans for path in one.local_copies(store.checkpoints))]
        size = sum(path.stat().st_size for path in paths)
        if not dry_run:
            store.clean(None if artifacts is None else folder_url(artifacts))
    verb = "would be removed" if dry_run else "removed"
    typer.echo(f"{verb}: {plural(len(orphans), 'trial')} and {plural(len(paths), 'file')}, {byte_size(size)}")


@app.command()
def check(runs: Runs = RUNS, store_url: StoreUrl = None, as_json: Json = False) -> None:
    """Check a store: the database, trials against their hashes, checkpoints against their checksums, leftovers."""
    from leadline.running.checking import check_store
    from leadline.store import Store
    from leadline.text import plural
    from leadline.text.terminal import print_text, progress_bar

    with Store.open_existing(runs, store_url) as store, progress_bar("check") as progress:
        count = len(store.files())
        found = list(check_store(store, progress))
    damages = [one for one in found if not one.harmless]
    if as_json:
        print_json([{"place": one.place, "what": one.what, "harmless": one.harmless} for one in found])
    else:
        faults = plural(len(damages), "fault") if damages else "no fault"
        print_text("\n".join([*map(str, found), f"checked: {plural(count, 'trial')}; {faults}"]))
    if damages:
        raise typer.Exit(1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="New file for the copy.")],
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
) -> None:
    """Copy a SQLite store into a new file, also while studies run; checkpoints are not included."""
    from leadline.store import Store

    with Store.open_existing(runs, store_url) as store:
        store.backup(file)
    typer.echo(f"written: {file}; checkpoints are in {runs / 'checkpoints'}")


def _show_unstored(name: str, as_json: bool) -> None:
    """Print a ready study or the study of a file."""
    from leadline.study.load import load_study, read_study

    loaded = load_study(name)
    if as_json:
        print_json({"study": loaded.name, "specification": loaded.spec.model_dump(mode="json")})
        return
    typer.echo(read_study(name).rstrip("\n"))
    if loaded.changes:
        typer.echo(f"# {loaded.changes}")


def _show_stored(store: "Store", name: str, as_json: bool) -> None:
    """Print a stored study, and what is known of it."""
    from leadline.specs import parse
    from leadline.specs.study import StudySpec
    from leadline.study.ready import ready_studies
    from leadline.study.writing import to_yaml

    values = _study_values(store, name)
    if as_json:
        print_json(values)
        return
    also = "; `leadline list` shows the ready study of this name" if name in ready_studies() else ""
    typer.echo(f"# The study {name} in {store!r}{also}.")
    typer.echo(to_yaml(parse(StudySpec, values.pop("specification"))), nl=False)
    for line in _value_lines(values):
        typer.echo(f"# {line}")


def _value_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of names and values, without those that are empty."""
    for key, value in values.items():
        if value is None or value == {}:
            continue
        text = json.dumps(value, indent=2) if isinstance(value, Mapping) else str(value)
        if isinstance(value, Mapping) or "\n" in text:
            yield f"{key}:"
            yield from (f"  {line}" for line in text.splitlines())
        else:
            yield f"{key}: {text}"


def _to_change(runs: Path, store_url: str | None) -> "Store":
    """Return an existing store, opened to change it."""
    from leadline.store import Store

    Store.open_existing(runs, store_url).close()
    return Store.open(runs, store_url)


def _study_values(store: "Store", name: str) -> dict[str, Any]:
    record, counts = store.study(name), store.counts(name)
    return {
        "study": name,
        "hash": record.hash,
        "created": record.created.isoformat(timespec="seconds"),
        "trials": _counted({state: count for state, count in counts.items() if count}),
        "specification": dict(record.spec),
        "found by runs": dict(record.resolved),
    }


def _trial_values(store: "Store", record: "TrialRecord") -> dict[str, Any]:
    arm = store.arm_of(record.trial)
    inside = next((one.studies for one in store.files() if one.trial == record.trial), ())
    moments = {name: getattr(record, name) for name in ("created", "started", "ended")}
    return {
        "trial": record.trial,
        "arm": arm and arm[0],
        "seed": record.seed_name,
        "studies": ", ".join(inside) or None,
        "state": record.state,
        "owner": record.owner,
        "error": record.error,
        "note": record.note,
        **{name: moment and moment.isoformat(timespec="seconds") for name, moment in moments.items()},
        "seconds": record.seconds,
        "attempts": record.attempts,
        "checkpoint": record.checkpoint,
        "epochs in it": record.checkpoint_epoch,
        "epoch of the tested network": store.best_epoch(record.trial),
        "environment": dict(record.environment or {}),
        "specification": dict(record.spec),
    }


def _sizes(store: "Store") -> dict[str, int]:
    """Return study -> bytes of its checkpoints on this machine."""
    sizes: dict[str, int] = {}
    for one in store.files():
        size = sum(path.stat().st_size for path in one.local_copies(store.checkpoints))
        for study in one.studies:
            sizes[study] = sizes.get(study, 0) + size
    return sizes


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"
