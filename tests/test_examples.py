"""What the README shows is run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from leadline.specs.study import StudySpec
from leadline.study.expand import expand

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text("\n".join(blocks("python")))
    result = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "final-test" in result.stdout


def test_the_readmes_study_expands() -> None:
    text, more = blocks("yaml")
    own = yaml.safe_load(text)
    assert len(expand(StudySpec.model_validate(own)).arms) == 4
    for key, value in yaml.safe_load(more).items():  # each of which a study may have
        study = {**own, key: value}
        if key == "decide":
            del study["seeds"]
        assert len(expand(StudySpec.model_validate(study)).arms) == 4


def test_the_readme_names_the_test_command() -> None:
    assert "make test" in "".join(blocks("sh")).splitlines()
