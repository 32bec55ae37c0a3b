"""What the project says of itself where it is installed, distributed and cited."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import leadline

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == leadline.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None and first[1] == leadline.__version__


def test_classifiers_and_the_required_python_agree() -> None:
    versions = [
        classifier.rpartition(" ")[2] for classifier in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", classifier)
    ]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert versions == sorted(versions, key=lambda version: int(version.partition(".")[2]))


@pytest.mark.parametrize("target", ["demo", "test", "test-all", "check", "format", "bench", "docs", "clean"])
def test_make_help_has_a_line_for_every_target(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert f"make {target}" in makefile.partition("help:\n")[2].partition("\n\n")[0]


def test_development_tools_are_set_up_after_the_base() -> None:
    makefile = (ROOT / "Makefile").read_text()
    needs = dict(re.findall(r"^([\w-]+|\$\(\w+\)): ?(.*)$", makefile, re.MULTILINE))
    assert needs["$(READY_DEV)"] == "$(READY)"
    assert [target for target, need in needs.items() if need == "$(READY)"] == ["$(READY_DEV)", "demo", "bench"]
