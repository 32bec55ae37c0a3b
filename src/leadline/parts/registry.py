"""Registries of parts that are found by name; each part has its own file in the package of its kind.

A kind is an abstract class with a registry; a part is a specification that is a subclass of it::

    @OPTIMIZERS.register
    class SGD(Spec, Optimizer):
        name: Literal["sgd"] = "sgd"
        learning_rate: float = 0.1

        def build(self, parameters): ...

A field of that type accepts any part, by name or with arguments, and a reference to custom code: `sgd`,
`{name: sgd, learning_rate: 0.05}` or `{module: torch.optim:NAdam, arguments: {lr: 0.002}}`.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from leadline.parts.base import Spec
from leadline.parts.reference import Reference, refer

M = TypeVar("M", bound=Spec)
K = TypeVar("K")

_CUSTOM = "custom"


class Registry(Generic[K]):
    """The parts of one kind.

    Args:
        kind: name of the kind in messages, such as `optimizer`.
        package: package of the parts; all of its modules are imported on first use.
        infer: function that returns the name for a mapping without `name` and `module`; None: these are invalid.

    Example:
        >>> from leadline.parts.optimizers import OPTIMIZERS
        >>> sorted(OPTIMIZERS.members())
        ['adam', 'adamw', 'rmsprop', 'sgd']
    """

    def __init__(self, kind: str, package: str, infer: Callable[[Mapping[str, Any]], str] | None = None) -> None:
        self.kind = kind
        self.package = package
        self.infer = infer
        self._members: dict[str, type[Spec]] = {}
        self._custom: type[Spec] | None = None

    def register(self, member: type[M]) -> type[M]:
        """Add a part under each name that its field `name` allows; a `Reference` is used for custom code.

        Raises:
            ValueError: another part has the name.
        """
        if issubclass(member, Reference):
            self._custom = member
            return member
        for name in get_args(member.model_fields["name"].annotation):
            if self._members.get(name, member).__qualname__ != member.__qualname__:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {self._members[name]} and {member}")
            self._members[name] = member
        return member

    def members(self) -> Mapping[str, type[Spec]]:
        """Return the specification class of every part by name."""
        home = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(home.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        return dict(self._members)

    def schema(self, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Return the schema of a field that accepts any part."""
        members = self.members()
        choices = {name: handler.generate_schema(member) for name, member in members.items()}
        if self._custom is not None:
            choices[_CUSTOM] = handler.generate_schema(self._custom)
        union = core_schema.tagged_union_schema(choices, discriminator=self._tag)
        return core_schema.no_info_before_validator_function(lambda value: self._spell_out(value, members), union)

    def _spell_out(self, value: object, members: Mapping[str, type[Spec]]) -> object:
        """Convert a name or a custom object to a mapping; return mappings and specifications unchanged."""
        if isinstance(value, str):
            value = {"module": value} if ":" in value else {"name": value}
        elif not isinstance(value, Mapping | Spec) and callable(value):
            value = refer(value)
        if isinstance(value, Mapping) and not value.keys() & {"name", "module"}:
            if self.infer is not None:
                return {"name": self.infer(value), **value}
            raise ValueError(f"{self.kind} {dict(value)} has no name; known: {', '.join(sorted(members))}")
        return value

    @staticmethod
    def _tag(value: Any) -> str | None:
        if isinstance(value, Mapping):
            return _CUSTOM if "module" in value else value.get("name")
        if isinstance(value, Reference):
            return _CUSTOM
        name: str | None = getattr(value, "name", None)
        return name
