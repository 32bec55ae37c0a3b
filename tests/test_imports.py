"""What importing a module brings in: PyTorch takes seconds, so commands that need none must not import it."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    ["leadline.specs.study", "leadline.parts.code", "leadline.seeds", "leadline.networks"],
)
def test_specifications_and_parts_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'scipy', 'sklearn'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_digits_are_read_without_torch() -> None:
    code = "import sys; from pathlib import Path; from leadline.specs import DataSpec"
    code += "; DataSpec(name='digits').read(Path()); print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


HEAVY = {
    "altair",
    "jinja2",
    "numpy",
    "pandas",
    "pydantic",
    "rich",
    "scipy",
    "scipy.stats",
    "sqlalchemy",
    "torch",
    "typer",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("leadline", set()),
        ("leadline.cli", {"typer"}),
        ("leadline.analysis.stats", {"numpy", "scipy"}),
        ("leadline.analysis.verdict", {"numpy", "pandas", "pydantic", "rich", "scipy"}),
    ],
)
def test_what_a_start_imports(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == heavy


@pytest.mark.slow
@pytest.mark.parametrize("module", ["leadline.probes.snapshots", "leadline.reports.page"])
def test_probes_are_asked_for_and_drawn_without_torch(module: str) -> None:
    code = f"import sys, {module}; from leadline.probes.snapshots import PROBES"
    code += "; PROBES.members(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
