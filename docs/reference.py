"""Write docs/reference.md, the reference of study files, from the code: `python -m docs.reference`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from leadline.data.datasets import DataSpec
from leadline.study.vocabulary import KINDS, REQUIRED, SECTIONS, Entry, Key, entries, keys_of
from leadline.text.docstrings import read_docstring

PATH = Path(__file__).with_name("reference.md")

_INTRODUCTION = """# Study files

<!-- Written by `python -m docs.reference`; change the docstrings and descriptions in the code instead. -->

What a study file may say. `leadline list NAME` prints the same of one part, `leadline init NAME` writes a study file to
change, and `leadline schema` prints the JSON Schema for editors. Wherever a part is named, `{name: NAME, key: value}`
gives its keys, and `{module: package.module:thing, arguments: {...}}` stands for custom code. None in a description is
`null` in a file.
"""

_TITLES = {
    "network": "Networks",
    "data set": "Data sets",
    "optimizer": "Optimizers",
    "schedule": "Schedules",
    "averaging": "Averages of weights",
    "loss": "Losses",
    "augmentation": "Augmentations",
    "shortcut": "Shortcuts",
    "probe": "Probes",
    "metric": "Metrics",
}


def reference() -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRODUCTION, *_sections(), *(line for kind in KINDS for line in _kind(kind))]).rstrip() + "\n"


def _sections() -> Iterator[str]:
    yield "## Keys\n"
    for key, spec in SECTIONS.items():
        said = read_docstring(spec)
        yield f"### {'At the top' if key == 'study' else f'`{key}`'}\n"
        yield " ".join(filter(None, (_text(said.summary), _text(said.details)))) + "\n"
        yield from _table(keys_of(spec))


def _kind(kind: str) -> Iterator[str]:
    found = entries(kind)
    yield f"## {_TITLES[kind]}\n"
    if kind == "metric":
        yield "| metric | what it is |\n|---|---|"
        yield "\n".join(f"| `{one.name}` | {_text(one.summary)} |" for one in found) + "\n"
        return
    if kind == "data set":
        yield "Keys of every data set:\n"
        yield from _table(key for key in found[0].keys if key.name in DataSpec.model_fields)
    for one in found:
        yield from _entry(one)


def _entry(entry: Entry) -> Iterator[str]:
    yield f"### `{entry.name}`\n"
    yield " ".join(filter(None, (_text(entry.summary), _text(entry.details)))) + "\n"
    yield from _table(key for key in entry.keys if entry.kind != "data set" or key.name not in DataSpec.model_fields)
    if entry.source:
        yield f"Source: {_text(entry.source)}\n"
    yield f"Example: `{entry.example}`\n"


def _table(keys: Iterable[Key]) -> Iterator[str]:
    rows = [f"| `{key.name}` | {_text(key.type)} | {_default(key)} | {_text(key.meaning)} |" for key in keys]
    if rows:
        yield "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _default(key: Key) -> str:
    return key.default if key.default == REQUIRED else f"`{key.default}`".replace("|", "\\|")


def _text(text: str) -> str:
    for mark in "|*<":
        text = text.replace(mark, f"\\{mark}")
    return text


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
    print(f"written: {PATH}")
