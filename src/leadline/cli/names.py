"""What has a name, with a line about each: for `leadline list`, and for the shell, which completes names.

Nothing here imports PyTorch, so that the shell answers quickly.
"""

import shlex
from pathlib import Path

from leadline.study.ready import ready_studies


def study_names() -> list[tuple[str, str]]:
    """Return the ready studies with their titles."""
    return list(ready_studies().items())


def study_names_and_files() -> list[tuple[str, str]]:
    """Return the ready studies, and the YAML files in the current folder whose names need no quotes in a shell."""
    files = sorted(path.name for path in Path().iterdir() if path.suffix in (".yaml", ".yml"))
    return [*study_names(), *((name, "study file") for name in files if shlex.quote(name) == name)]


def network_names() -> list[tuple[str, str]]:
    """Return the named networks with a line about each."""
    from leadline.networks import FAMILIES

    return [(name, _summary(function)) for name, function in FAMILIES.items()]


def dataset_names() -> list[tuple[str, str]]:
    """Return the data sets with a line about each."""
    from leadline.data.datasets import DATASETS

    return [(name, _summary(member)) for name, member in sorted(DATASETS.members().items())]


def probe_names() -> list[tuple[str, str]]:
    """Return the probes of stored trials with a line about each."""
    from leadline.probes.snapshots import PROBES

    return [(name, _summary(member)) for name, member in sorted(PROBES.members().items())]


def _summary(thing: object) -> str:
    return (thing.__doc__ or "").split("\n")[0]
