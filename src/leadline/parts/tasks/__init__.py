"""Tasks that networks are trained for: classification or a custom task; no torch.

A task is a subclass of `Task`. Data sets specify their task, by default `classification`; it defines everything in
training, evaluation, the store, verdicts and reports that depends on the task::

    data: {module: mine:heights, task: {module: mine:Regression}}
"""

import importlib
import pkgutil
from functools import lru_cache
from typing import TypeVar

from leadline.errors import SpecError, unknown
from leadline.parts.reference import Reference
from leadline.parts.tasks.base import Task

__all__ = ["Task", "register_task", "task_of", "tasks"]

_tasks: dict[str, Task] = {}
_custom: dict[tuple[object, str], Task] = {}
"""Instances of custom tasks, by their class and arguments."""
T = TypeVar("T", bound=type[Task])


def register_task(task: T) -> T:
    """Add a task under its name."""
    _tasks[task.name] = task()
    return task


@lru_cache(maxsize=1)
def _load() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def tasks() -> dict[str, Task]:
    """Return every built-in task by name.

    Example:
        >>> list(tasks())
        ['classification']
    """
    _load()
    return dict(_tasks)


def task_of(named: str | Reference) -> Task:
    """Return a task from its value in a specification of data: a name, or a reference to a subclass of `Task`.

    Raises:
        SpecError: the name is unknown, or the reference is to something else.

    Example:
        >>> task_of("classification").metric
        'test_error'
    """
    if isinstance(named, str):
        known = tasks()
        if named not in known:
            raise SpecError(unknown("task", named, known))
        return known[named]
    key = named.resolve(), named.model_dump_json()
    if key not in _custom:
        made = named.call()
        if not isinstance(made, Task):
            raise SpecError(f"task {named.module}: expected a subclass of leadline.Task, got {type(made).__name__}")
        _custom[key] = made
    return _custom[key]
