"""The public names are explicit, resolve, and importing the package alone is quick."""

import subprocess
import sys

import pytest

import leadline


@pytest.mark.parametrize("name", leadline.__all__)
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(leadline, name)
    assert name in ("__version__", "FAMILIES") or value.__doc__


def test_all_is_what_the_lazy_table_holds() -> None:
    assert set(leadline.__all__) == {*leadline._HOME, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        leadline.nothing  # noqa: B018


@pytest.mark.slow
def test_no_public_name_is_hidden_by_a_module() -> None:
    script = """
import importlib, pkgutil, leadline
modules = {module.name for module in pkgutil.iter_modules(leadline.__path__)}
hidden = {name for name in modules & set(leadline.__all__) if getattr(leadline, name).__name__ != f"leadline.{name}"}
assert not hidden, hidden
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_import_alone_loads_nothing_heavy() -> None:
    script = "import leadline, sys; assert not {'torch', 'pandas', 'pydantic', 'sqlalchemy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
