"""The script of report pages: put together once, and then read from the user's cache folder."""

from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
import vl_convert

from leadline.reports.script import page_script


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The snippets that were bundled; what a snippet is bundled to is short."""
    snippets = list[str]()

    def bundle(snippet: str, vl_version: str) -> str:
        snippets.append(snippet)
        return f'draw("{vl_version}")\r\n"</script>" + "<!-- é"'

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    page_script.cache_clear()
    yield snippets
    page_script.cache_clear()


def in_a_new_process() -> str:
    page_script.cache_clear()
    return page_script()


def kept() -> Path:
    (path,) = (platformdirs.user_cache_path("leadline") / "scripts").iterdir()
    return path


def test_it_is_put_together_once(bundled: list[str]) -> None:
    first = page_script()
    assert first.endswith('\n"<\\/script>" + "<\\!-- é"') and "\r" not in first
    assert in_a_new_process() == first
    assert len(bundled) == 1 and "vegaEmbed" in bundled[0]


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff\n", None])
def test_a_damaged_file_of_the_cache_is_written_anew(bundled: list[str], content: bytes | None) -> None:
    first = page_script()
    whole = kept().read_bytes()
    kept().write_bytes(whole[:-3] if content is None else content)
    assert in_a_new_process() == first
    assert len(bundled) == 2 and kept().read_bytes() == whole


def test_another_version_of_what_it_is_made_of_is_another_file(
    bundled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = page_script()
    monkeypatch.setattr("leadline.reports.script.vegalite_version", lambda _: "5.8")
    assert "5.8" in in_a_new_process() != first
    assert len(bundled) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    bundled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert page_script() == in_a_new_process()
    assert len(bundled) == 2
