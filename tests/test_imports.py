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
@pytest.mark.parametrize("module", ["leadline.probes.snapshots", "leadline.reports.page"])
def test_probes_are_asked_for_and_drawn_without_torch(module: str) -> None:
    code = f"import sys, {module}; from leadline.probes.snapshots import PROBES"
    code += "; PROBES.members(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
