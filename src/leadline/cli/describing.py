"""What `leadline list NAME` prints of a ready study, a network, a data set or any other part of a study."""

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import typer

from leadline.cli.options import print_json
from leadline.errors import SpecError, unknown
from leadline.study.expand import ExpandedStudy
from leadline.study.load import load_study
from leadline.study.ready import find_ready_study, ready_studies
from leadline.study.vocabulary import REQUIRED, Entry, Key, every_name, find_entries
from leadline.text import plural


def describe(name: str, as_json: bool) -> None:
    """Print everything that has a name, such as `parity`, which is a ready study and a data set.

    Raises:
        SpecError: nothing has it; the message suggests the nearest name.
    """
    ready, found = find_ready_study(name), find_entries(name)
    if ready is None and not found:
        raise SpecError(unknown("name", name, {*ready_studies(), *every_name()}))
    study = None if ready is None else load_study(ready)
    if as_json:
        print_json([*([] if study is None else [_study_values(study)]), *map(asdict, found)])
        return
    parts = [*([] if study is None else [_study_lines(study)]), *map(_entry_lines, found)]
    typer.echo("\n\n".join("\n".join(part) for part in parts))


def _study_values(study: ExpandedStudy) -> dict[str, Any]:
    return {
        "kind": "study",
        "name": study.name,
        "summary": study.title,
        "details": study.spec.notes,
        "data": study.spec.data.display_name,
        "epochs": study.spec.training.epochs,
        "arms": list(study.spec.arms),
        "vary": study.spec.vary,
        "trials": sum(1 for _ in study.trials()),
    }


def _study_lines(study: ExpandedStudy) -> Iterator[str]:
    values = _study_values(study)
    yield f"{study.name}: ready study"
    yield from _wrapped(study.title, "  ")
    yield from _wrapped(study.spec.notes, "  ")
    yield f"  {values['data']}, {plural(values['epochs'], 'epoch')}, {plural(values['trials'], 'trial')}"
    yield from _wrapped(f"arms: {', '.join(values['arms'])}", "  ")
    for key, levels in study.spec.vary.items():
        yield from _wrapped(f"{key}: {', '.join(map(str, levels))}", "  ")
    yield f"  leadline show {study.name}              its file"
    yield f"  leadline plan {study.name}              what it costs on this machine"
    yield f"  leadline init NAME --from {study.name}  a file to change"


def _entry_lines(entry: Entry) -> Iterator[str]:
    yield f"{entry.name}: {entry.kind}"
    yield from _wrapped(entry.summary, "  ")
    yield from _wrapped(entry.details, "  ")
    if entry.keys:
        yield "arguments:" if entry.kind == "network" else "keys:"
    for key in entry.keys:
        yield from _key_lines(key)
    if entry.source:
        yield from _wrapped(f"source: {entry.source}", "")
    yield f"example: {entry.example}"


def _key_lines(key: Key) -> Iterator[str]:
    default = key.default if key.default == REQUIRED else f"default {key.default}"
    yield from _wrapped(f"{key.name} ({key.type}; {default})", "  ")
    yield from _wrapped(key.meaning, "      ")


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(shutil.get_terminal_size().columns, 120)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
