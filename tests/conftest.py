"""Shapes and types in signatures are checked while the tests run; every test has one thread and its own folders."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

from browser import Browser

os.environ.setdefault("OMP_NUM_THREADS", "1")
install_import_hook(
    [
        "leadline.networks.modules",
        "leadline.training.loop",
        "leadline.pretraining",
        *(f"leadline.data.{name}" for name in ("batches", "encoded", "pixels")),
    ],
    "beartype.beartype",
)
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _away_from_the_users_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the user's own data sets, runs or store."""
    monkeypatch.setenv("LEADLINE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LEADLINE_RUNS", raising=False)
    monkeypatch.delenv("LEADLINE_STORE", raising=False)
    monkeypatch.delenv("LEADLINE_TRUST", raising=False)


@pytest.fixture
def known_speed(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A machine whose calibration takes no time: 1 ms a step, 10 us a call, 1 GFLOP/s."""
    units = {"steps": 1e-3, "calls": 1e-5, "multiply-adds of products": 2e-9, "multiply-adds, convolved": 2e-9}
    monkeypatch.setattr("leadline.study.planning.calibration.calibrate", lambda device, threads: units)
    return units


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, as a package has it whose other dependencies are not needed."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("no axe-core: pip install --no-deps axe-playwright-python==0.1.8")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")
