"""What a shell completes when Tab is pressed: asked as the shells ask, through the environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leadline.cli.names import dataset_names, network_names, probe_names, study_names, study_names_and_files

COMMAND = "import sys; sys.argv[0] = 'leadline'; from leadline.cli import main; main()"


def ask(line: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "", line
    return done.stdout


def completed(line: str, folder: Path) -> list[str]:
    """What bash would offer for the last word of a line."""
    words = line.split(" ")
    return ask(
        line, folder, _LEADLINE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)
    ).split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("leadline run dem", {"demo", "demo-decide"}),
        ("leadline plan comparative-m", {"comparative-mnist", "comparative-mnist-10k"}),
        ("leadline worker my", {"my.yaml", "my2.yml"}),
        ("leadline slurm demo-", {"demo-decide"}),
        ("leadline inspect cifar-p", {"cifar-plain", "cifar-preresnet"}),
        ("leadline predict-depth ml", {"mlp"}),
        ("leadline data check cifar1", {"cifar10", "cifar100"}),
        ("leadline data get mn", {"mnist"}),
        ("leadline probe abc les", {"lesion"}),
        ("leadline ver", {"verdict"}),
        ("leadline run demo --checkpoint", {"--checkpoint-every"}),
        ("leadline run nothing-begins-so", set()),
    ],
)
def test_bash_is_offered_what_has_a_name(line: str, expected: set[str], tmp_path: Path) -> None:
    for name in ("my.yaml", "my2.yml", "my study.yaml", "my.txt"):
        (tmp_path / name).touch()
    assert set(completed(line, tmp_path)) == expected


@pytest.mark.slow
def test_zsh_is_told_the_titles(tmp_path: Path) -> None:
    said = ask(
        "run", tmp_path, _LEADLINE_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="leadline run comparative-cifar10"
    )
    assert '"comparative-cifar10":"CNN against ResNet on CIFAR-10"' in said


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_after_sourcing_the_script(tmp_path: Path) -> None:
    (tmp_path / "leadline").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{COMMAND}" "$@"\n')
    (tmp_path / "leadline").chmod(0o755)
    script = r"""
source <(_LEADLINE_COMPLETE=source_bash leadline)
complete -p leadline | grep -o '_leadline_completion leadline$'
COMP_WORDS=(leadline run dem) COMP_CWORD=2
_leadline_completion leadline
printf '%s\n' "${COMPREPLY[@]}" | sort
"""
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "_leadline_completion leadline\ndemo\ndemo-decide\n" and done.stderr == ""


def test_names_are_those_that_commands_accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert study_names_and_files() == study_names()
    (tmp_path / "own.yaml").touch()
    assert ("own.yaml", "study file") in study_names_and_files()
    for names in (study_names(), network_names(), dataset_names(), probe_names()):
        assert len(dict(names)) == len(names) > 3 and all(about for _, about in names)


@pytest.mark.slow
def test_names_are_found_without_anything_heavy() -> None:
    script = """
import sys
from leadline.cli.names import dataset_names, network_names, probe_names, study_names_and_files
study_names_and_files()
assert "pydantic" not in sys.modules
network_names(), dataset_names(), probe_names()
heavy = {"torch", "pandas", "scipy", "sklearn", "altair", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
