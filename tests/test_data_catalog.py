"""The catalog of data sets agrees with the specifications and is cheap to import."""

import re
import subprocess
import sys
from typing import get_args

import pytest

from leadline.data.catalog import CATALOG, PickleFiles
from leadline.spec import DatasetName


def test_the_names_are_those_that_a_specification_may_give() -> None:
    assert list(CATALOG) == list(get_args(DatasetName))


@pytest.mark.parametrize("name", CATALOG)
def test_an_entry_is_complete(name: str) -> None:
    info = CATALOG[name]
    assert info.name == name and info.title
    assert info.classes in (2, 10, 100) and info.train > info.test > info.classes
    downloads = info.files.downloads if info.files else ()
    for item in downloads:
        assert re.fullmatch(r"[0-9a-f]{64}", item.sha256)
        assert len(item.mirrors) >= 2 and len(set(item.mirrors)) == len(item.mirrors)
        assert all(address.startswith("http") and address.endswith("/" + item.name) for address in item.mirrors)
    assert len({item.sha256 for item in downloads}) == len(downloads)
    if isinstance(info.files, PickleFiles):
        assert info.train % len(info.files.train) == info.test % len(info.files.test) == 0


def test_finding_and_reading_files_needs_no_torch() -> None:
    code = (
        "import sys, leadline.data.catalog, leadline.data.files; print('torch' in sys.modules, 'pooch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
