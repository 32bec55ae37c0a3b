"""References to custom code: by module and name, as in YAML and in the ledger, or by the object itself.

Objects that can be imported are referred to by module and name. Objects that cannot, because they are defined in a
notebook, are kept in this process under their names there, and are sent to worker processes as pickles.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pydantic import Field

from leadline.errors import SpecError, not_installed
from leadline.parts.base import Spec
from leadline.parts.source import SCRIPTS, find_by_name, identify_object, script_name
from leadline.parts.trust import check_origin, check_trust, trust
from leadline.seeds import seeded, stream

PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"

_objects: dict[str, Any] = {}
"""Reference -> object, for the objects referred to in this process."""
_local: set[str] = set()
"""References to objects that other processes cannot import."""
_sent: dict[str, str] = {}
"""Reference -> identity, for the objects that another process sent: the source of a notebook's code is only there."""


class Reference(Spec):
    """Custom code: a function or class, called with `arguments`."""

    module: str = Field(
        pattern=PATTERN,
        description="package.module:thing, searched for in the current folder and on Python's path",
    )
    arguments: dict[str, Any] = Field(default={}, description="keyword arguments, of JSON types")

    def resolve(self) -> Any:
        """Return the object.

        Raises:
            SpecError: it cannot be imported.
        """
        return resolve(self.module)

    def call(self, *given: Any, **further: Any) -> Any:
        """Call the object with positional arguments, then `arguments`, then further keyword arguments.

        Raises:
            SpecError: it cannot be imported, or the call fails.
        """
        function = self.resolve()
        try:
            return function(*given, **{**self.arguments, **further})
        except Exception as error:
            reason = " ".join(str(error).split())
            raise SpecError(f"{self.module}: calling it failed: {type(error).__name__}: {reason}") from error


def refer(thing: Callable[..., Any]) -> dict[str, Any]:
    """Return the reference to a function, a class, or a `functools.partial` of one, as plain data.

    Raises:
        SpecError: it has no name, such as a lambda, or has positional arguments.

    Example:
        >>> import math, functools
        >>> refer(math.sqrt)
        {'module': 'math:sqrt'}
        >>> refer(functools.partial(round, ndigits=2))
        {'module': 'builtins:round', 'arguments': {'ndigits': 2}}
    """
    if isinstance(thing, functools.partial):
        if thing.args:
            raise SpecError(
                f"{thing}: arguments of a partial function must be given by name, got {thing.args!r} by position"
            )
        inner = refer(thing.func)
        return {**inner, "arguments": {**inner.get("arguments", {}), **thing.keywords}}
    name = getattr(thing, "__qualname__", "")
    if not name or "<lambda>" in name:
        raise SpecError(f"{thing!r} has no name by which it can be imported; define it with `def` or `class`")
    module = thing.__module__ or "builtins"
    key = _key(module, name, thing)
    _keep({key: thing})
    return {"module": key}


def _keep(objects: Mapping[str, Any]) -> None:
    """Keep objects that were passed from Python, and so are trusted, under the references to them."""
    _objects.update(objects)
    trust(objects)


def _key(module: str, name: str, thing: object) -> str:
    """Return the reference to an object; if it cannot be imported, record it as local and make its name unique."""
    found = find_by_name(module, name)
    is_there = found is thing or (inspect.ismethod(found) and found == thing)  # a class method is bound at each access
    package = module
    if module in SCRIPTS:
        package = script_name(name) or "__main__"
    key = f"{package}:{name.replace('<locals>.', '')}"
    if is_there and package != "__main__":
        return key
    if not is_there:
        key += _suffix(thing)
    _local.add(key)
    return key


def _suffix(thing: object) -> str:
    """Return a suffix that distinguishes an object from others of the same name, equal in all processes."""
    return "_" + identify_object(thing).removeprefix("sha256:")[:8]


def refer_to_object(thing: object, name: str) -> dict[str, Any]:
    """Return the reference to an object other than a function or class, by its name at the top level of a module.

    An object that is defined in a notebook is kept in this process.

    Args:
        thing: the object.
        name: name to use if no module contains the object.
    """
    for package, module in list(sys.modules.items()):
        if package not in SCRIPTS:
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is thing:
                    trust([key := f"{package}:{attribute}"])
                    return {"module": key}
    main = vars(sys.modules["__main__"])
    found = next((attribute for attribute, value in list(main.items()) if value is thing), None)
    script = None if found is None else script_name(found)
    key = f"{script or '__main__'}:{found or name}"
    if script is None:
        if found is None:
            key += _suffix(thing)
        _local.add(key)
    _keep({key: thing})
    return {"module": key}


def resolve(module: str) -> Any:
    """Return the object behind `package.module:thing`; everything custom is found here.

    Raises:
        SpecError: the module is not trusted, cannot be imported, or has no such function or class.
    """
    if module in _objects:
        return _objects[module]
    package, _, name = module.partition(":")
    check_trust(module)
    try:
        found: Any = importlib.import_module(package)
    except Exception as error:  # importing custom code can raise any exception
        if isinstance(error, ModuleNotFoundError) and error.name == "sklearn":
            raise SpecError(not_installed(module, "scikit-learn")) from None
        reason = " ".join(str(error).split())
        hint = "; it was defined in a notebook or an interactive session" if package == "__main__" else ""
        raise SpecError(f"{module}: importing {package} failed: {type(error).__name__}: {reason}{hint}") from None
    for attribute in name.split("."):
        found = None if attribute.startswith("__") else getattr(found, attribute, None)
        if inspect.ismodule(found):  # that the module imports, so not what it defines
            found = None
    if found is None or isinstance(found, bool | int | float | str | bytes):
        kept = "; code defined in a notebook exists only while that notebook runs" if package == "__main__" else ""
        raise SpecError(f"{module}: {package} has no function or class {name!r}{kept}")
    origin = found.__module__ if inspect.isclass(found) or inspect.isroutine(found) else None
    check_origin(module, origin or package)
    trust([module])
    return found


def drawing_of(part: object, seed: int, purpose: str, *keys: int | str) -> AbstractContextManager[None]:
    """Return a context that seeds the global generators for a custom part; built-in parts do not use them.

    Args:
        part: a built-in or custom part.
        seed: the trial's seed.
        purpose: what the part draws for, as in `leadline.seeds.stream`.
        keys: what distinguishes draws for the same purpose, such as the number of the step.
    """
    return seeded(stream(seed, purpose, *keys)) if isinstance(part, Reference) else nullcontext()


def is_local(module: str) -> bool:
    """Return whether a reference is to an object that exists only in this process, such as one from a notebook."""
    return module in _local


def identify_local(module: str) -> str:
    """Return the identity of an object that exists only in this process, or in the one that sent it, `sha256:...`.

    Raises:
        SpecError: something that it uses cannot be identified.
    """
    return _sent.get(module) or identify_object(resolve(module))


def pack_objects(names: Iterable[str]) -> bytes | None:
    """Return the pickled local objects of references with their identities; None: other processes can import all.

    Args:
        names: the references, `package.module:thing` each.

    Raises:
        SpecError: an object cannot be identified or pickled.
    """
    needed = sorted(_local.intersection(names))
    if not needed:
        return None
    import cloudpickle

    identities = {name: identify_local(name) for name in needed}
    try:
        packed: bytes = cloudpickle.dumps(({name: _objects[name] for name in needed}, identities))
    except Exception as error:
        raise SpecError(
            f"{', '.join(needed)}: cannot be sent to worker processes ({type(error).__name__}: {error}); use"
            " workers=0, or define it in a module"
        ) from None
    return packed


def unpack_objects(packed: bytes | None) -> None:
    """Register the objects that `pack_objects` packed in another process."""
    if packed is not None:
        import cloudpickle

        objects, identities = cloudpickle.loads(packed)
        _keep(objects)
        _local.update(objects)
        _sent.update(identities)


def references(plain: object) -> set[str]:
    """Return every `module` that plain data, such as the JSON of a specification, refers to."""
    if isinstance(plain, Mapping):
        own = {plain["module"]} if isinstance(plain.get("module"), str) else set()
        return own.union(*(references(value) for value in plain.values()))
    if isinstance(plain, list | tuple):
        return set().union(*(references(value) for value in plain))
    return set()
