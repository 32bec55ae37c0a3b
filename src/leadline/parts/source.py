"""Identify the source of modules, and of objects that cannot be imported.

A module is identified by a digest of its file and of every file that it imports, directly or indirectly, from the same
folder or package; a module of an installed distribution by the name and version of the distribution, and one of the
standard library by the version of Python. An object that is defined in a notebook or in a function is identified by its
source and by everything that it uses: default values of arguments, captured variables, globals, and their modules.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import platform
import site
import sys
import sysconfig
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from leadline.errors import SpecError

SCRIPTS = ("__main__", "__mp_main__")
"""Names of the main module of a process."""

_CHANGES = {
    *("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "setdefault", "popitem"),
    *("add", "discard", "difference_update", "intersection_update", "symmetric_difference_update"),
}
"""Methods that change a list, dictionary or set."""

_PARSING = threading.RLock()
"""Held while this module parses: before Python 3.11.8, one of several threads that do so at once fails now and then by
a `SystemError` (CPython's issue 106905). What other libraries parse meanwhile is not covered."""

_NO_PART_OF_A_CLASS = {"__module__", "__qualname__", "__dict__", "__weakref__", "__doc__", "__firstlineno__"}


def identify_module(package: str) -> str:
    """Return the identity of a module, such as `sha256:9f86d081...`, `torch 2.13.0` or `python 3.11`.

    Raises:
        SpecError: it cannot be found, or has changed since this process imported it.
    """
    if package.partition(".")[0] == "leadline":
        return f"leadline {importlib.metadata.version('leadline')}"
    path = _file_of(package)
    if path is None or _is_inside(path, _standard_library()):
        return "python " + ".".join(platform.python_version_tuple()[:2])
    if is_installed(path):
        return _distribution(package)
    root = _root(package, path)
    files = sorted(_imported_files(path, root))
    _check_loaded(files)
    return _digest([(str(file.relative_to(root)), _digest_of(file)) for file in files])


def identify_object(thing: object) -> str:
    """Return the identity of an object that cannot be imported, `sha256:...`.

    Raises:
        SpecError: something that it uses cannot be identified.
    """
    return _digest(_Describer().describe(thing))


def _digest(content: object) -> str:
    """Return a digest of plain data, equal in all processes."""
    return f"sha256:{hashlib.sha256(repr(content).encode()).hexdigest()}"


def find_by_name(module: str, name: str) -> object:
    """Return the object with a dotted name in a loaded module, or None."""
    found: object = sys.modules.get(module)
    for attribute in name.split("."):
        found = getattr(found, attribute, None)
    return found


def script_name(name: str) -> str | None:
    """Return the module name under which other processes can import an object defined in a script.

    None: this process does not run a script, or its script does not define the object at the top level.
    """
    file = getattr(sys.modules["__main__"], "__file__", None)
    if not file or Path(file).suffix != ".py" or not Path(file).is_file():
        return None
    defined: set[str] = set()
    for node in _parse(Path(file)).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined.update(target.id for target in targets if isinstance(target, ast.Name))
    return Path(file).stem if name.partition(".")[0] in defined else None


class _Describer:
    """Describe objects as plain data, each object once."""

    def __init__(self) -> None:
        self.seen: dict[int, object] = {}  # keeps objects alive, so that ids are unique

    def describe(self, one: Any) -> object:
        if one is None or isinstance(one, bool | int | float | complex | str | bytes):
            return repr(one)
        if id(one) in self.seen:
            return "again"
        self.seen[id(one)] = one
        if isinstance(one, list | tuple):
            return [type(one).__name__, *map(self.describe, one)]
        if isinstance(one, Mapping):
            return ["mapping", *sorted(([self.describe(key), self.describe(one[key])] for key in one), key=repr)]
        if isinstance(one, set | frozenset):
            return ["set", *sorted(map(self.describe, one), key=repr)]
        if isinstance(one, ModuleType):
            return ["module", one.__name__, identify_module(one.__name__)]
        if isinstance(one, functools.partial):
            return ["partial", *map(self.describe, (one.func, one.args, one.keywords))]
        if inspect.ismethod(one):
            return ["method", self.describe(one.__self__), self.describe(one.__func__)]
        if isinstance(one, staticmethod | classmethod):
            return [type(one).__name__, self.describe(one.__func__)]
        if isinstance(one, property):
            return ["property", *map(self.describe, (one.fget, one.fset, one.fdel))]
        if inspect.isfunction(one) or inspect.isclass(one):
            return self._definition(one)
        if inspect.isbuiltin(one) or inspect.isroutine(one):
            return ["builtin", getattr(one, "__module__", None), getattr(one, "__qualname__", repr(type(one)))]
        if hasattr(one, "detach"):  # a tensor, without importing PyTorch
            one = one.detach().cpu().numpy()
        if isinstance(one, np.ndarray | np.generic) and one.dtype != object:
            array = np.ascontiguousarray(one)
            return ["array", str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
        if not hasattr(one, "__dict__"):
            raise SpecError(f"{one!r:.80}: its content cannot be identified; define what uses it in a module")
        return ["object", self.describe(type(one)), self.describe(vars(one))]

    def _definition(self, one: Any) -> object:
        module, name = one.__module__ or "builtins", one.__qualname__
        if module not in SCRIPTS and find_by_name(module, name) is one:
            return ["imported", module, name, identify_module(module)]
        if inspect.isclass(one):
            parts = {key: value for key, value in vars(one).items() if key not in _NO_PART_OF_A_CLASS}
            return ["class", name, [self.describe(base) for base in one.__bases__], self.describe(parts)]
        try:
            with _PARSING:
                source = textwrap.dedent(inspect.getsource(one))
        except (OSError, TypeError):
            raise SpecError(
                f"{name}: its source, which identifies its results, cannot be found; define it in a module"
            ) from None
        closed = [_content(cell) for cell in one.__closure__ or ()]
        used = {key: one.__globals__[key] for key in _globals_used(one.__code__) if key in one.__globals__}
        around = (one.__defaults__, one.__kwdefaults__, closed, getattr(one, "__wrapped__", None), used)
        return ["function", name, source, *map(self.describe, around)]


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _globals_used(code: CodeType) -> set[str]:
    """Return the names in a function's code that may be global, including those in nested functions."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*map(_globals_used, inner))


def _check_loaded(files: list[Path]) -> None:
    """Check that loaded modules still match their files.

    Raises:
        SpecError: functions, classes or constants of a loaded module differ from those in its file.
    """
    wanted = set(map(str, files))
    loaded = {origin: module for module in list(sys.modules.values()) if (origin := _loaded_from(module)) in wanted}
    for file in files:
        if (module := loaded.get(str(file))) is None:
            continue
        codes, constants = _definitions(_digest_of(file), file)
        if not _has_only(codes, file, module):
            raise SpecError(f"{file} was changed after it was imported; restart Python or the notebook kernel")
        for name, value in constants:
            if repr(getattr(module, name, value)) != repr(value):
                raise SpecError(
                    f"{file}: {name} differs from the file: either the file was changed after it was imported, or code"
                    f" changed {name}; restart Python or the notebook kernel, or let nothing change {name}"
                )


def _loaded_from(module: ModuleType) -> str | None:
    """Return the file of a loaded module, or None if an import hook may have rewritten its source."""
    spec = getattr(module, "__spec__", None)
    return spec.origin if spec is not None and type(spec.loader) is SourceFileLoader else None


def _has_only(codes: frozenset[CodeType], file: Path, module: ModuleType) -> bool:
    """Return whether all functions that a module has from its file are among some code."""
    for value in list(vars(module).values()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        for one in [value, *vars(value).values()] if inspect.isclass(value) else [value]:
            function = getattr(one, "__func__", one)
            from_file = inspect.isfunction(function) and function.__code__.co_filename == str(file)
            if from_file and function.__code__ not in codes:
                return False
    return True


@lru_cache(maxsize=1024)
def _definitions(found: str, file: Path) -> tuple[frozenset[CodeType], tuple[tuple[str, object], ...]]:
    """Return the code of a file's functions, and its constants: literals that nothing in the file changes.

    An empty one tells nothing, and is most often a registry that another file fills.
    """
    tree = _parse(file)
    codes: set[CodeType] = set()
    waiting = [compile(tree, str(file), "exec", dont_inherit=True)]
    while waiting:
        inner = [one for one in waiting.pop().co_consts if isinstance(one, CodeType)]
        codes.update(inner)
        waiting += inner
    nodes = list(ast.walk(tree))
    stored = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    stored.update(name for node in nodes if isinstance(node, ast.Global) for name in node.names)
    filled = {name for node in nodes if (name := _changed_inside(node)) is not None}  # such as a registry
    constants: list[tuple[str, object]] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            try:
                value = ast.literal_eval(node.value)
            except (ValueError, TypeError):
                continue
            if stored[name] == 1 and name not in filled and value not in ([], {}):
                constants.append((name, value))
    return frozenset(codes), tuple(constants)


def _parse(file: Path) -> ast.Module:
    """Return the syntax tree of a file.

    Raises:
        SyntaxError: the file is no Python.
    """
    with _PARSING:
        return ast.parse(file.read_bytes(), str(file))


def _changed_inside(node: ast.AST) -> str | None:
    """Return the name whose value an expression may change, such as `BLOCKS[key] = ...` or `SEEN.append(...)`."""
    of_item = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
    by_method = isinstance(node, ast.Attribute) and node.attr in _CHANGES
    inner: ast.AST = node
    while isinstance(inner, ast.Subscript | ast.Attribute):
        inner = inner.value
    return inner.id if (of_item or by_method) and isinstance(inner, ast.Name) else None


def _digest_of(file: Path) -> str:
    try:
        status = file.stat()
        return _digest_at(file, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise SpecError(f"{file}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4096)
def _digest_at(file: Path, modified: int, size: int) -> str:
    return hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def search_here() -> str:
    """Let modules be found in the current folder too, after Python's own path; return the folder."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return here


def _file_of(package: str) -> Path | None:
    """Return the file of a module without importing it, or None if it is built into Python."""
    here = search_here()
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


def is_installed(path: Path) -> bool:
    """Return whether a file, given by its resolved path, belongs to Python or an installed distribution."""
    return any(_is_inside(path, folder) for folder in (_standard_library(), *_site_folders()))


def _is_inside(path: Path, folder: Path) -> bool:
    inside = path.is_relative_to(folder)
    return inside and not (folder == _standard_library() and "site-packages" in path.relative_to(folder).parts)


def _distribution(package: str) -> str:
    top = package.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(top)
    if not names:
        return f"{top} of unknown version"
    name = sorted(set(names))[0]
    version = importlib.metadata.version(name).partition("+")[0]  # builds for different devices have the same code
    return f"{name} {version}"


def _root(package: str, path: Path) -> Path:
    """Return the folder from which a module is imported: the parent of its top-level package."""
    depth = len(package.split(".")) - (path.name != "__init__.py")
    return path.parents[depth]


def _imported_files(path: Path, root: Path) -> set[Path]:
    """Return a file and the files that it imports, directly or indirectly, from the same root folder."""
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
    """Yield the absolute names of modules that a file may import, including `a.b` for `from a import b`."""
    try:
        tree = _parse(file)
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
    """Yield the files of a module and of its parent packages that are inside a folder."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:count])
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                yield file
