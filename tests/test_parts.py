"""Open parts: members by name, custom code by reference, and what identifies that code."""

import ast
import functools
import importlib
import linecache
import os
import random
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from leadline.errors import SpecError
from leadline.parts.base import parse
from leadline.parts.code import identify, identify_all
from leadline.parts.optimizers import OPTIMIZERS, CustomOptimizer
from leadline.parts.reference import Reference, is_local, pack_objects, refer, resolve
from leadline.parts.schedules import SCHEDULES, CustomSchedule
from leadline.seeds import seeded, stream
from leadline.specs import SGD, Adam, TrainingSpec

OWN = """
from helpers.inner import twice

TOP = 0.5

def rate(progress: float, top: float = 1.0) -> float:
    return twice(top * (1 - progress)) / 2

class Thing:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a custom module, which imports another one."""
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("")
    (tmp_path / "helpers" / "inner.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "apart.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_parts", "own_filled", "helpers", "helpers.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    yield tmp_path
    for name in ("own_parts", "own_filled", "helpers", "helpers.inner"):
        sys.modules.pop(name, None)


def identity_elsewhere(module: str, folder: Path) -> str:
    """Return what another process, which has imported nothing yet, takes for the identity of code."""
    code = f"from leadline.parts.code import identify; print(identify({module!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_every_member_is_found_by_its_name_and_every_name_once() -> None:
    assert sorted(OPTIMIZERS.members()) == ["adam", "adamw", "rmsprop", "sgd"]
    assert sorted(SCHEDULES.members()) == ["constant", "cosine", "one-cycle", "step"]
    with pytest.raises(ValueError, match="optimizer 'sgd' is registered twice"):
        OPTIMIZERS.register(type("Other", (SGD,), {}))


def test_a_part_is_given_by_name_with_arguments_by_reference_or_as_the_object_itself() -> None:
    assert parse(TrainingSpec, {"optimizer": "adam"}).optimizer == Adam()
    assert parse(TrainingSpec, {"optimizer": Adam(learning_rate=0.5)}).optimizer == Adam(learning_rate=0.5)
    assert parse(TrainingSpec, {"optimizer": "torch.optim:NAdam"}).optimizer == CustomOptimizer(
        module="torch.optim:NAdam"
    )
    partial = functools.partial(torch.optim.NAdam, lr=0.02)
    assert TrainingSpec.model_validate({"optimizer": partial}).optimizer == CustomOptimizer(
        module="torch.optim.nadam:NAdam", arguments={"lr": 0.02}
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": "sdg"}, "optimizer.name: unknown name 'sdg'; did you mean 'sgd'"),
        ({"learning_rate": 0.1}, "has no name; known: adam, adamw, rmsprop, sgd"),
        ({"name": "sgd", "rate": 1}, "unknown key 'rate'"),
        ({"module": "no colon"}, "module: 'no colon'"),
        (lambda parameters: None, "has no name by which it can be imported"),
    ],
)
def test_a_part_that_cannot_be_gets_one_line(value: object, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(TrainingSpec, {"optimizer": value})
    assert "\n" not in str(caught.value)


def test_a_json_schema_names_every_member() -> None:
    text = str(TrainingSpec.model_json_schema())
    assert all(name in text for name in ("SGD", "RMSprop", "CustomOptimizer", "OneCycle", "CustomSchedule"))


def test_optimizers_of_the_users_own_are_checked_when_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", "builtins")
    parameters = [nn.Parameter(torch.zeros(2))]
    built = CustomOptimizer(module="torch.optim:NAdam", arguments={"lr": 0.02}).build(parameters)
    assert isinstance(built, torch.optim.NAdam)
    assert built.param_groups[0]["lr"] == 0.02
    for module, message in {
        "torch.optim:LBFGS": "needs a closure",
        "torch.optim:Nadam": "has no function or class 'Nadam'",
        "builtins:list": "returned a list; expected a torch.optim.Optimizer",
        "torch.optim:Adadelta2": "torch.optim has no function or class",
    }.items():
        with pytest.raises(SpecError, match=message):
            CustomOptimizer(module=module).build(parameters)


def test_a_schedule_of_the_users_own(own: Path) -> None:
    schedule = CustomSchedule(module="own_parts:rate", arguments={"top": 0.5})
    assert [schedule.at(step, 4) for step in (0, 2, 4)] == [0.5, 0.25, 0.0]
    with pytest.raises(SpecError, match=r"own_parts:rate returned -1.0 at progress 0; expected a number of 0 or more"):
        CustomSchedule(module="own_parts:rate", arguments={"top": -1.0}).at(0, 4)


@pytest.mark.slow
def test_identity_covers_the_file_and_what_it_imports_from_its_folder(own: Path) -> None:
    first = identity_elsewhere("own_parts:rate", own)
    assert first.startswith("sha256:")
    (own / "apart.py").write_text("# not imported")
    assert identity_elsewhere("own_parts:rate", own) == first
    (own / "helpers" / "inner.py").write_text("def twice(x):\n    return x + x\n")
    second = identity_elsewhere("own_parts:rate", own)
    assert second != first
    (own / "own_parts.py").write_text(OWN + "\n# changed\n")
    assert identity_elsewhere("own_parts:rate", own) not in (first, second)


@pytest.mark.slow
def test_identity_does_not_depend_on_where_the_folder_is(own: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "own_parts.py").write_bytes(OWN.replace("\n", "\r\n").encode())
    (other / "helpers").mkdir()
    for name in ("__init__.py", "inner.py"):
        (other / "helpers" / name).write_bytes((own / "helpers" / name).read_bytes())
    assert identity_elsewhere("own_parts:rate", other) == identity_elsewhere("own_parts:rate", own)


def test_identity_of_what_is_installed_is_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", "json, numpy")
    assert identify("torch.optim:NAdam") == f"torch {torch.__version__.partition('+')[0]}"
    assert identify("numpy.linalg:norm") == f"numpy {np.__version__}"
    assert identify("json:loads") == f"python {sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(SpecError, match=r"not_there: no such module in .*; check its name, or install it"):
        identify("not_there:thing")


def test_a_change_after_the_import_is_refused_for_what_runs_is_the_old_code(own: Path) -> None:
    resolve("own_parts:rate")
    identify("own_parts:rate")
    (own / "own_parts.py").write_text(OWN + "\n# changed\n")
    with pytest.raises(SpecError, match=r"own_parts.* was changed after .*; restart Python or the notebook kernel"):
        identify("own_parts:rate")


FACTOR = 3


def helper(x: float) -> float:
    return FACTOR * x


@pytest.mark.slow
def test_objects_that_cannot_be_imported_are_identified_by_their_source_and_sent_pickled() -> None:
    def inside(progress: float) -> float:
        return helper(progress)

    reference = Reference(**refer(inside))
    assert reference.call(2.0) == 6.0
    identity = identify(reference.module)
    first, packed = identity, pack_objects([reference.module])
    assert packed is not None

    def inside(progress: float) -> float:  # type: ignore[no-redef]
        return helper(progress) + 0.0

    other = Reference(**refer(inside))
    assert other.module != reference.module and identify(other.module) != first
    assert identify(reference.module) == first

    code = (
        "import sys; from leadline.parts.reference import unpack_objects, resolve;"
        f" unpack_objects(sys.stdin.buffer.read()); print(resolve({reference.module!r})(2.0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=packed, capture_output=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.split() == [b"6.0"]


def test_an_edit_before_the_first_look_is_refused_too(own: Path) -> None:
    resolve("own_parts:rate")
    for old, new, message in (
        ("0.5", "0.25", r"own_parts\.py: TOP differs from the file: either the file was changed after it was imported"),
        ("/ 2", "/ 4", r"own_parts\.py was changed after it was imported"),
    ):
        (own / "own_parts.py").write_text(OWN.replace(old, new))
        with pytest.raises(SpecError, match=message):
            identify("own_parts:rate")
    (own / "own_parts.py").write_text(OWN)
    identify("own_parts:rate")


def test_threads_that_identify_code_parse_one_after_the_other(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, parse_text = list[object](), list[int](), ast.parse

    def watched(*args: object) -> object:
        inside.append(args)
        most.append(len(inside))
        time.sleep(0.01)  # lets other threads come here
        inside.pop()
        return parse_text(*args)  # type: ignore[call-overload]

    monkeypatch.setattr(ast, "parse", watched)
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(identify, ["own_parts:rate"] * 4))
    assert len(found) == 1 and len(most) >= 4 and max(most) == 1


def test_what_a_module_fills_itself_is_no_constant_and_what_others_change_is_named(own: Path) -> None:
    filled = """
FOUND = {}
SEEN = [0]
WIDTHS = [16, 32]
ELSEWHERE = {}

def found(one):
    FOUND[one.__name__] = one
    return one

@found
def rate(progress):
    SEEN.append(progress)
    return WIDTHS[0].real * progress
"""
    (own / "own_filled.py").write_text(filled)
    rate = resolve("own_filled:rate")
    sys.modules["own_filled"].ELSEWHERE["a"] = rate
    before = identify("own_filled:rate")
    assert rate(0.5) == 8.0 and identify("own_filled:rate") == before
    sys.modules["own_filled"].WIDTHS.append(64)
    with pytest.raises(SpecError, match=r"own_filled\.py: WIDTHS differs from the file: .* or code changed WIDTHS"):
        identify("own_filled:rate")
    sys.modules["own_filled"].WIDTHS.pop()
    (own / "own_filled.py").write_text(filled.replace("[16, 32]", "[16, 64]"))
    with pytest.raises(SpecError, match=r"own_filled\.py: WIDTHS differs from the file: either the file was changed"):
        identify("own_filled:rate")
    (own / "own_filled.py").write_text(filled.replace("ELSEWHERE = {}", "ELSEWHERE = {'b': 1}"))
    with pytest.raises(SpecError, match=r"own_filled\.py: ELSEWHERE differs from the file"):
        identify("own_filled:rate")


class Maker:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def times(self, x: float) -> float:
        return self.factor * x

    @classmethod
    def negated(cls, x: float) -> float:
        return -x


@pytest.mark.slow
def test_objects_of_one_name_are_told_apart() -> None:
    def make(factor: float) -> Callable[[float], float]:
        def scaled(x: float) -> float:
            return factor * x

        return scaled

    made = []
    for number in (1.0, 2.0):

        def defaulted(x: float, factor: float = number) -> float:
            return factor * x

        made.append(defaulted)

    @functools.wraps(helper)
    def wrapped(x: float) -> float:
        return 5.0 * helper(x)

    things = [make(1.0), make(2.0), *made, Maker(1.0).times, Maker(2.0).times, Maker.negated, helper, wrapped]
    references = [Reference(**refer(thing)) for thing in things]
    assert [one.call(1.0) for one in references] == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, -1.0, 3.0, 15.0]
    assert len({one.module for one in references}) == len(things)
    assert [refer(thing)["module"] for thing in (make(1.0), Maker(2.0).times)] == [
        references[0].module,
        references[5].module,
    ]
    assert [is_local(one.module) for one in references] == [True] * 6 + [False, False, True]


CELLS = """
import {module}
import numpy as np
WIDTHS = {{"hidden": [4]}}
TABLE = np.arange(3)
class Base:
    scale = 1.0
class Net(Base):
    @property
    def width(self):
        return WIDTHS["hidden"][0] + int(TABLE[1]) + {module}.more()
    def call(self):
        return self.width
def net():
    return Net().call()
"""


@pytest.mark.slow
def test_a_notebooks_code_is_identified_by_all_that_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    main = types.ModuleType("__main__")  # as in a kernel: it has no file, and its source is of cells
    monkeypatch.setitem(sys.modules, "__main__", main)
    cells = 0

    def run(source: str) -> None:
        nonlocal cells
        cells += 1
        name = f"<cell {cells}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), vars(main))

    def identity() -> str:
        key = refer(main.net)["module"]  # type: ignore[attr-defined]
        assert key == "__main__:net" and is_local(key)
        return identify(key)

    (tmp_path / "notebook_helper.py").write_text("def more():\n    return 0\n")
    run(CELLS.format(module="notebook_helper"))
    seen = [identity()]
    assert identity() == seen[0]
    packed = pack_objects(["__main__:net"])
    code = (
        "import sys; from leadline.parts.reference import unpack_objects, pack_objects;"
        " from leadline.parts.code import identify; unpack_objects(sys.stdin.buffer.read());"
        " print(identify('__main__:net'), pack_objects(['__main__:net']) is not None)"
    )
    worker = subprocess.run(
        [sys.executable, "-c", code],
        input=packed,
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    )
    assert worker.stdout.decode().split() == [seen[0], "True"]  # where the source of the cells is not
    for change in (
        'WIDTHS["hidden"].append(5)',
        "TABLE[1] = 7",
        "Base.scale = 2.0",
        CELLS.format(module="notebook_helper").replace("+ int", "- int"),
    ):
        run(change)
        seen.append(identity())
    (tmp_path / "notebook_helper_2.py").write_text("def more():\n    return 1\n")
    run(CELLS.format(module="notebook_helper_2"))
    seen.append(identity())
    assert len(set(seen)) == len(seen)


def test_what_only_a_guarded_script_defines_is_local(tmp_path: Path) -> None:
    script = tmp_path / "guarded.py"
    script.write_text(
        "from leadline.parts.reference import is_local, refer\n"
        "def top(): ...\n"
        "if __name__ == '__main__':\n"
        "    def inner(): ...\n"
        "    print([(one['module'], is_local(one['module'])) for one in map(refer, (top, inner))])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[('guarded:top', False), ('__main__:inner', True)]"


def test_all_code_in_plain_data_is_identified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", "all")
    plain = {"a": [{"module": "json:loads", "arguments": {"inner": {"module": "math:sqrt"}}}], "b": {"name": "x"}}
    assert list(identify_all(plain)) == ["json:loads", "math:sqrt"]


def test_seeded_code_draws_the_same_and_leaves_the_global_generators_as_they_were() -> None:
    def seed_all() -> None:
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)

    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    seed_all()
    expected = drawn()
    seed_all()
    with seeded(stream(0, "noise", 1)):
        first = drawn()
    assert drawn() == expected
    with seeded(stream(0, "noise", 1)):
        assert drawn() == first
    with seeded(stream(0, "noise", 2)):
        assert all(one != other for one, other in zip(drawn(), first, strict=True))
