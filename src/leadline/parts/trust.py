"""Which custom code may run: that of the user's own project, and what the user names.

A reference is text: anybody can write one into a study file or a row of a ledger. It is followed only if its module
lies in the current folder or in that of the study file and belongs to no installed package; if `LEADLINE_TRUST` names
it; or if the object was passed from Python. The decision is made from where the module's files lie: nothing is imported
before it.
"""

import importlib.util
import os
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from pathlib import Path

from leadline.errors import SpecError
from leadline.parts.source import SCRIPTS, is_installed, search_here

SETTING = "LEADLINE_TRUST"
"""Environment variable: packages, modules, references or absolute folders, separated by commas, whose code may run;
`all`: any code."""

PUBLIC = ("leadline.networks", "sklearn.metrics", "torch.nn", "torch.optim")
"""Modules of installed packages that may always be referred to: their functions and classes touch no files."""

_names: set[str] = set()
"""What this process trusts beside the setting and its folder: folders of study files, references it has followed."""


def trust(names: Iterable[str]) -> None:
    """Let this process run the code of packages, modules, references or absolute folders."""
    _names.update(names)


def trusted_names() -> frozenset[str]:
    """Return what this process trusts, to pass it to a process that works for it, in whatever folder."""
    named = (name.strip() for name in os.environ.get(SETTING, "").split(","))
    return frozenset({str(Path.cwd()), *filter(None, named), *_names})


def check_trust(reference: str) -> None:
    """Check, without importing anything, that the module of `package.module:thing` may be imported.

    Raises:
        SpecError: it is neither the user's own nor named in `LEADLINE_TRUST`.
    """
    search_here()
    _check(reference, reference.partition(":")[0])


def check_origin(reference: str, origin: str) -> None:
    """Check that a function or class that a trusted module has may be called, given the module that defines it.

    Raises:
        SpecError: it was imported from a module that is not trusted, such as `os`.
    """
    package = reference.partition(":")[0]
    if origin.partition(".")[0] != package.partition(".")[0] and not _is_named(reference, package):
        _check(reference, origin)


def _check(reference: str, module: str) -> None:
    within = _packages(module)
    if module in SCRIPTS or _is_named(reference, module) or not set(PUBLIC).isdisjoint(within):
        return
    specs = list(_find_specs(within))
    if not specs:
        _check_beside(reference, within[0])
    if not all(map(_is_own, specs)):
        raise SpecError(
            f"{reference}: {module} is not in this project's folder ({Path.cwd()}), so its code is not run; if you"
            f" trust it, set {SETTING}={within[0]}, or use `leadline --trust {within[0]} COMMAND`"
        )


def _check_beside(reference: str, package: str) -> None:
    """Check that a package that is not found does not lie beside the study file, or in another folder that is trusted.

    Raises:
        SpecError: it does; says how it is found.
    """
    for folder in sorted(name for name in trusted_names() if Path(name).is_absolute()):
        if (Path(folder) / f"{package}.py").is_file() or (Path(folder) / package).is_dir():
            raise SpecError(
                f"{reference}: {package} lies in {folder}, where Python does not look for modules; run leadline in that"
                f" folder, or set PYTHONPATH={folder}"
            )


def _is_named(reference: str, module: str) -> bool:
    return not trusted_names().isdisjoint(("all", reference, *_packages(module)))


def _packages(module: str) -> list[str]:
    """Return the packages that a module lies in, and the module: a and a.b for a.b."""
    return list(accumulate(module.split("."), "{}.{}".format))


def _find_specs(modules: Iterable[str]) -> Iterator[ModuleSpec]:
    """Yield where packages, each inside the one before, would be imported from, as far as files alone tell."""
    places: list[str] | None = None
    for name in modules:
        try:
            found = importlib.util.find_spec(name) if places is None else PathFinder.find_spec(name, places)
        except ValueError:  # a module that was made rather than imported
            found = ModuleSpec(name, None)
        if found is None:
            return
        yield found
        if found.submodule_search_locations is None:
            return
        places = [*found.submodule_search_locations]


def _is_own(spec: ModuleSpec) -> bool:
    """Return whether a module's file lies in a folder of the user's; a folder without `__init__.py` has no code."""
    if spec.has_location and spec.origin:
        file = Path(spec.origin).resolve()
        folders = [Path(name).resolve() for name in trusted_names() if Path(name).is_absolute()]
        return not is_installed(file) and any(map(file.is_relative_to, folders))
    return spec.submodule_search_locations is not None
