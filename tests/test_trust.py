"""Custom code runs only if it is the user's own, if the user named it, or if it was passed from Python."""

import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import leadline as ll
from leadline.cli import app
from leadline.errors import LeadlineError, SpecError, StoreError
from leadline.parts import trust
from leadline.parts.code import identify
from leadline.parts.reference import refer, resolve
from leadline.running.job import Job
from leadline.running.trial import check_code
from leadline.specs import TrialSpec, parse
from leadline.store import Store

MARK = "import pathlib\npathlib.Path({!r}).touch()\n"
NETWORK = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, which is the current one, in a process that has followed no reference yet."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(trust, "_names", set())
    monkeypatch.setattr("leadline.parts.reference._objects", {})
    monkeypatch.setattr("leadline.parts.code._identified", {})
    return folder


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that any code of the package `stranger`, on Python's path but outside the project, makes when run."""
    mark = tmp_path / "code-was-run"
    package = tmp_path / "elsewhere" / "stranger"
    package.mkdir(parents=True)
    for name in ("__init__", "inner"):
        (package / f"{name}.py").write_text(MARK.format(str(mark)) + NETWORK)
    (package.parent / "strangers_module.py").write_text(MARK.format(str(mark)) + NETWORK)
    monkeypatch.syspath_prepend(package.parent)
    for name in ("stranger", "stranger.inner", "strangers_module"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return mark


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, LeadlineError), result.output
    return str(result.exception)


DATA = {"name": "digits", "train": 40, "validation": 20, "test": 20}
EVERYWHERE: dict[str, dict[str, Any]] = {
    "network": {"arms": {"a": {"network": {"module": "stranger.inner:net"}}, "b": {"network": "mlp"}}},
    "optimizer": {"training": {"epochs": 1, "optimizer": "stranger.inner:net"}},
    "schedule": {"training": {"epochs": 1, "schedule": {"module": "stranger.inner:net"}}},
    "loss": {"training": {"epochs": 1, "loss": {"module": "stranger.inner:net"}}},
    "data": {"data": {"module": "stranger.inner:net"}},
    "task": {"data": {"module": "torch.nn:Identity", "task": {"module": "stranger.inner:net"}}},
    "augment": {"data": {"name": "digits", "augment": {"module": "stranger.inner:net"}}},
    "probe": {"probes": [{"module": "stranger.inner:net", "at": ["end"]}]},
    "metric": {"contrasts": [{"a": "a", "b": "b", "metric": "stranger.inner:net"}]},
}


@pytest.mark.parametrize("place", EVERYWHERE)
@pytest.mark.parametrize("command", [pytest.param("plan", marks=pytest.mark.slow), "run"])  # which times networks
def test_a_study_file_runs_no_code_from_elsewhere(place: str, command: str, project: Path, mark: Path) -> None:
    study = {
        "name": "hostile",
        "data": "digits",
        "training": {"epochs": 1},
        "arms": {"a": {"network": "comparative-cnn"}, "b": {"network": "mlp"}},
        **EVERYWHERE[place],
    }
    (project / "study.yaml").write_text(yaml.safe_dump(study))
    if command == "plan" and place == "schedule":  # without which costs are estimated
        assert CliRunner().invoke(app, ["plan", "study.yaml"]).exit_code == 0
        assert not mark.exists()
        return
    for line in said(command, "study.yaml", *(("--workers", "0") if command == "run" else ())).splitlines():
        assert "stranger.inner:net: stranger.inner is not in this project's folder" in line
        assert "set LEADLINE_TRUST=stranger, or use `leadline --trust stranger COMMAND`" in line
    assert not mark.exists()


@pytest.mark.parametrize("module", ["stranger:net", "stranger.inner:net", "strangers_module:net", "stranger.not:x"])
def test_inspect_runs_no_code_from_elsewhere_unless_it_is_named(
    module: str, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ("--input", "1x8x8")
    assert "is not in this project's folder" in said("inspect", module, *shape)
    assert not mark.exists()
    monkeypatch.setenv("LEADLINE_TRUST", "other, strang")
    assert "is not in this project's folder" in said("inspect", module, *shape)
    assert not mark.exists()
    if ".not" not in module:
        monkeypatch.delenv("LEADLINE_TRUST")
        package = module.partition(":")[0].partition(".")[0]
        assert CliRunner().invoke(app, ["--trust", package, "inspect", module, *shape]).exit_code == 0
        assert mark.exists()


@pytest.mark.parametrize("named", ["all", "stranger", "json,stranger.inner", "stranger.inner:net"])
def test_what_the_setting_may_name(named: str, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", named)
    assert resolve("stranger.inner:net").__name__ == "net"
    assert identify("stranger.inner:net").startswith("sha256:")


def test_nothing_is_imported_to_identify_code_that_is_not_trusted(mark: Path) -> None:
    with pytest.raises(SpecError, match="is not in this project's folder"):
        identify("stranger.inner:net")
    assert not mark.exists() and "stranger" not in sys.modules


@pytest.mark.parametrize("module", ["os:system", "posix:system", "builtins:exec", "subprocess:run", "numpy:load"])
def test_python_and_what_is_installed_are_not_the_users_own(module: str) -> None:
    with pytest.raises(SpecError, match="is not in this project's folder"):
        resolve(module)


def test_a_virtual_environment_in_the_projects_folder_is_no_part_of_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = project / "env" / "site-packages"
    site.mkdir(parents=True)
    (site / "installed_here.py").write_text("def f(): ...\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("leadline.parts.source._site_folders", lambda: (site,))
    with pytest.raises(SpecError, match="installed_here is not in this project's folder"):
        resolve("installed_here:f")


def test_the_projects_own_code_may_be_referred_to_but_not_what_it_imports(project: Path) -> None:
    (project / "own_code.py").write_text("import os\nfrom os import system\nimport pathlib\ndef f(): ...\n")
    assert resolve("own_code:f").__name__ == "f"
    with pytest.raises(SpecError, match=f"own_code:system: {os.system.__module__} is not in this project's folder"):
        resolve("own_code:system")
    for name in ("os.system", "pathlib.os.system", "f.__globals__.clear", "__builtins__.exec"):
        with pytest.raises(SpecError, match="has no function or class"):
            resolve(f"own_code:{name}")
    with pytest.raises(SpecError, match="has no function or class"):
        resolve("torch.nn:functional.torch.hub.load")


def test_a_folder_of_the_project_does_not_lend_its_name_to_code_elsewhere(
    project: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package without `__init__.py` may have parts in several folders of Python's path."""
    for folder, name in ((project, "ours"), (tmp_path / "elsewhere", "theirs")):
        (folder / "shared_name").mkdir()
        (folder / "shared_name" / f"{name}.py").write_text(MARK.format(str(mark)) + NETWORK)
    monkeypatch.delitem(sys.modules, "shared_name", raising=False)
    with pytest.raises(SpecError, match="is not in this project's folder"):
        resolve("shared_name.theirs:net")
    assert not mark.exists()
    assert resolve("shared_name.ours:net").__name__ == "net"


def test_a_link_out_of_the_projects_folder_is_followed(project: Path, mark: Path, tmp_path: Path) -> None:
    (project / "linked.py").symlink_to(tmp_path / "elsewhere" / "strangers_module.py")
    with pytest.raises(SpecError, match="is not in this project's folder"):
        resolve("linked:net")
    assert not mark.exists()


def test_the_folder_of_a_study_file_counts_as_well(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "beside_the_study.py").write_text(NETWORK)
    arms = {"a": {"network": {"module": "beside_the_study:net"}}, "b": {"network": "mlp"}}
    (other / "study.yaml").write_text(
        yaml.safe_dump({"name": "s", "data": DATA, "training": {"epochs": 1}, "seeds": 1, "arms": arms})
    )
    (project / "beside_the_study").touch()  # no module, though it has the name of one
    assert "No module named 'beside_the_study'" in said("inspect", "beside_the_study:net")
    lies = f"beside_the_study lies in {other}, where Python does not look for modules; run leadline in that folder"
    assert f"beside_the_study:net: {lies}" in said("run", str(other / "study.yaml"), "--workers", "0")
    monkeypatch.setattr(trust, "_names", set())
    monkeypatch.syspath_prepend(other)
    with pytest.raises(SpecError, match="is not in this project's folder"):
        resolve("beside_the_study:net")
    assert CliRunner().invoke(app, ["run", str(other / "study.yaml"), "--workers", "0"]).exit_code == 0


def test_objects_from_python_are_trusted_and_their_names_with_them(mark: Path) -> None:
    net = importlib.import_module("stranger.inner").net
    reference = refer(net)["module"]
    assert resolve(reference) is net
    assert reference in trust.trusted_names()


def test_a_job_takes_the_trust_along(mark: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", "stranger")
    job = pickle.loads(pickle.dumps(Job("s", tmp_path, trusted=trust.trusted_names())))
    monkeypatch.delenv("LEADLINE_TRUST")
    with pytest.raises(SpecError, match="is not in this project's folder"):
        resolve("stranger.inner:net")
    job.admit_code()
    assert resolve("stranger.inner:net").__name__ == "net"


STUDY = {
    "data": {"name": "digits", "train": 100, "validation": 50, "test": 50},
    "training": {"epochs": 1},
    "seeds": [0],
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_objects_from_python_run_in_workers_but_not_from_the_ledger_alone(
    mark: Path, workers: int, tmp_path: Path
) -> None:
    script = tmp_path / "elsewhere" / "drive.py"
    script.write_text(
        "import sys, leadline as ll\n"
        "from stranger.inner import net\n"
        "if __name__ == '__main__':\n"
        f"    study = ll.Study('passed', arms={{'a': net, 'b': 'mlp'}}, **{STUDY!r})\n"
        f"    print(study.run('runs', workers={workers}, progress=False).outcome.counts)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "{'finished': 2}", done.stderr
    mark.unlink()
    with Store.open_existing(Path("runs")) as store:
        trial = store.trials_frame("passed").set_index("arm")["trial"]["a"]
        row = store.trial(trial)
    with pytest.raises(StoreError, match=r"stranger\.inner:net: stranger\.inner is not in this project's folder"):
        check_code(parse(TrialSpec, dict(row.spec)), None)
    assert "stranger.inner:net: stranger.inner is not" in said("export", trial[:12], "--output", "exported")
    assert "stranger.inner:net: stranger.inner is not" in said("probe", trial[:12], "jacobian")
    assert not mark.exists()


def test_without_scikit_learn_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sklearn":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for name in ("sklearn", "sklearn.metrics"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SpecError) as caught:
        resolve("sklearn.metrics:f1_score")
    assert str(caught.value) == (
        "sklearn.metrics:f1_score needs the package scikit-learn, which is not installed; pip install scikit-learn"
    )


def test_the_documented_packages_need_no_setting() -> None:
    for module in ("torch.optim:NAdam", "torch.nn:MultiMarginLoss", "torch.nn.functional:conv2d"):
        assert callable(resolve(module))
    assert callable(resolve("sklearn.metrics:cohen_kappa_score"))
    assert resolve("leadline.networks:cifar_resnet") is ll.networks.cifar_resnet
