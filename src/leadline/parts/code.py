"""Code as a part of identity: what a user's own function computes follows from its source, so a hash must cover it.

The identity of `package.module:thing` is a digest of its module's file and of every file that it imports, directly or
not, from the same folder or package. Of a module that belongs to an installed distribution it is the distribution's
name and version, of Python's own the version of Python. Code that a notebook defined is identified by its source and
by that of the functions, classes and constants of the notebook that it uses.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import platform
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

from leadline.errors import SpecError
from leadline.parts.reference import is_local, references, resolve

_identified: dict[str, str] = {}
"""Reference -> its identity when it was first asked for: what is imported stays as it was then."""


def identify_all(plain: object) -> dict[str, str]:
    """Return reference -> identity of all custom code in plain data, such as the JSON of a trial.

    Raises:
        SpecError: code cannot be found, or was changed after this process had imported it.
    """
    return {module: identify(module) for module in sorted(references(plain))}


def identify(module: str) -> str:
    """Return the identity of `package.module:thing`, such as `sha256:9f86d081...`, `torch 2.13.0` or `python 3.11`.

    Raises:
        SpecError: it cannot be found, or was changed after this process had imported it.

    Example:
        >>> identify("json:loads") == "python " + ".".join(platform.python_version_tuple()[:2])
        True
    """
    if is_local(module):
        return _digest(_local_sources(resolve(module)))
    package = module.partition(":")[0]
    path = _file_of(package)
    if path is None or _within(path, _standard_library()):
        return "python " + ".".join(platform.python_version_tuple()[:2])
    if any(_within(path, folder) for folder in _site_folders()):
        return _distribution(package)
    root = _root(package, path)
    found = _digest(sorted((str(file.relative_to(root)), _digest_of(file)) for file in _imported_files(path, root)))
    if package in sys.modules and _identified.setdefault(module, found) != found:
        raise SpecError(f"{module}: {path} was changed after it was imported; restart Python or the notebook kernel")
    return found


def _digest(content: object) -> str:
    return f"sha256:{hashlib.sha256(repr(content).encode()).hexdigest()}"


def _digest_of(file: Path) -> str:
    try:
        status = file.stat()
        return _digest_at(file, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise SpecError(f"{file}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4096)
def _digest_at(file: Path, modified: int, size: int) -> str:
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _file_of(package: str) -> Path | None:
    """Return the file of a module, without importing it; None: it is built into Python."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{package}: importing it failed: {type(error).__name__}: {reason}") from None
    if found is None:
        raise SpecError(f"{package}: no such module in {here} or on Python's path; check its name, or install it")
    return Path(found.origin).resolve() if found.has_location and found.origin else None


@lru_cache(maxsize=1)
def _site_folders() -> tuple[Path, ...]:
    paths = {*site.getsitepackages(), site.getusersitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))}
    return tuple(Path(path).resolve() for path in paths)


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _within(path: Path, folder: Path) -> bool:
    inside = path.is_relative_to(folder)
    return inside and not (folder == _standard_library() and "site-packages" in path.relative_to(folder).parts)


def _distribution(package: str) -> str:
    top = package.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top)
    if not names:
        return f"{top} of unknown version"
    name = sorted(set(names))[0]
    version = importlib.metadata.version(name).partition("+")[0]  # a build for another device is the same code
    return f"{name} {version}"


def _root(package: str, path: Path) -> Path:
    """Return the folder from which a module is imported: that of its topmost package."""
    depth = len(package.split(".")) - (path.name != "__init__.py")
    return path.parents[depth]


def _imported_files(path: Path, root: Path) -> set[Path]:
    """Return a file and what it imports, directly or not, from below the folder that it is imported from."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        if file.suffix == ".py":
            waiting += [inner for name in _imports(file, root) for inner in _files_below(root, name)]
    return found


def _imports(file: Path, root: Path) -> Iterator[str]:
    """Yield the modules that a file may import, by their names from the root; of `from a import b` also `a.b`."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise SpecError(f"{file}:{error.lineno}: {error.msg}") from None
    inside = file.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            kept = inside[: len(inside) - node.level + 1] if node.level else ()
            module = ".".join((*kept, *(node.module or "").split("."))).strip(".")
            yield module
            yield from (f"{module}.{alias.name}".strip(".") for alias in node.names)


def _files_below(root: Path, name: str) -> Iterator[Path]:
    """Yield the file of a module and of the packages around it, of those that lie below a folder."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:count])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                yield file


def _local_sources(thing: Any) -> list[tuple[str, str]]:
    """Return what identifies an object of a notebook: its source, and that of the notebook's objects that it uses."""
    home = inspect.getmodule(thing)
    names: Mapping[str, Any] = vars(home) if home is not None else getattr(thing, "__globals__", {})
    found: dict[str, str] = {}
    waiting = [(getattr(thing, "__qualname__", "thing"), thing)]
    while waiting:
        name, one = waiting.pop()
        if name in found:
            continue
        if not callable(one):
            found[name] = repr(one)
            continue
        try:
            found[name] = inspect.getsource(one)
        except (OSError, TypeError):
            raise SpecError(
                f"{name}: its source, which identifies its results, cannot be found; define it in a module"
            ) from None
        waiting += [
            (used, names[used])
            for used in sorted(_names_used(one))
            if used in names and _defined_in(names[used], getattr(thing, "__module__", None))
        ]
    return sorted(found.items())


def _defined_in(value: Any, module: str | None) -> bool:
    plain = isinstance(value, bool | int | float | str | bytes | tuple | None)
    return plain or (callable(value) and getattr(value, "__module__", None) == module)


def _names_used(thing: Callable[..., Any]) -> set[str]:
    """Return the global names in the code of a function, or of a class's methods."""
    codes = [inspect.unwrap(thing).__code__] if inspect.isfunction(thing) else []
    if inspect.isclass(thing):
        codes = [one.__code__ for one in vars(thing).values() if inspect.isfunction(one)]
    names: set[str] = {base.__name__ for base in getattr(thing, "__bases__", ())}
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [one for one in code.co_consts if isinstance(one, CodeType)]
    return names
