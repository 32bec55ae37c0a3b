"""CONTRIBUTING.md is followed: its files are written into a copy of the source, and a study is run with them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_there_are_ten_how_tos_and_every_file_that_they_name_is_there() -> None:
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    assert len(sections) == 10
    new = set(re.findall(r"^# (src/\S+)$", TEXT, re.MULTILINE))
    for section in sections:
        prose = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
        named = re.findall(r"`((?:src|docs|tests)/[\w./]+)`", prose)
        assert named, section.splitlines()[0]
        missing = [path for path in named if not (ROOT / path).exists() and path not in new]
        assert not missing, missing


@pytest.mark.slow
def test_the_files_of_the_how_tos_make_a_study_that_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    blocks = re.findall(r"^```(?:python|yaml)\n# (src/\S+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    for path, content in blocks:
        assert not (tmp_path / path).exists(), f"{path} is there already"
        (tmp_path / path).write_text(content)

    def leadline(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        done = subprocess.run(
            [sys.executable, "-m", "leadline", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "stripes" in leadline("list")
    schema = leadline("schema")
    assert all(name in schema for name in ("nadam", "stripes"))
    leadline("run", "stripes", "--workers", "0")
    verdict = json.loads(leadline("verdict", "stripes", "--json"))
    (contrast,) = verdict["contrasts"]
    assert contrast["metric"] == "worst_class_error" and contrast["n"] + contrast["failed_a"] >= 2  # or at chance
    leadline("report", "stripes", "--output", "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Quartiles of the largest probability" in page and "test error of the worst class" in page
