"""What reaches terminals and spreadsheets: characters that they have, and nothing that they would obey."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.live import Live
from rich.text import Text

from leadline.cli import main
from leadline.errors import SpecError
from leadline.reports.charts.files import write_whole
from leadline.study.load import load_study
from leadline.text.tables import Column, Table, csv_cell, frame_to_csv, to_csv
from leadline.text.terminal import PlainStream, make_console, protect_streams, to_ascii

HOSTILE = "a\x1b[31mb\x1b]0;title\x07\u202ec\rd\x9b2J"


def streams(monkeypatch: pytest.MonkeyPatch, encoding: str) -> tuple[io.BytesIO, io.BytesIO]:
    """Protect standard output and standard error in an encoding, and return what they write to."""
    out, err = io.BytesIO(), io.BytesIO()
    for name, buffer in (("stdout", out), ("stderr", err)):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding, write_through=True))
    protect_streams()
    return out, err


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "latin-1", "ascii"])
def test_what_an_encoding_lacks_becomes_the_nearest_ascii(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    buffers = streams(monkeypatch, encoding)
    print("−4.5 ≤ x — 語")
    make_console(stderr=True).print("−1 → 2", markup=False, highlight=False)
    out, err = (buffer.getvalue().decode(encoding) for buffer in buffers)
    dash, less = {"cp1252": ("—", "<="), "cp437": ("-", "≤")}.get(encoding, ("-", "<="))
    assert out == f"-4.5 {less} x {dash} \\u8a9e\n"
    assert err == "-1 -> 2\n"


def test_the_nearest_ascii_is_ascii() -> None:
    assert to_ascii("−–—×±≈≥·…’“größer 1²") == "---x+-~>=*...'\"grosser 1^2"
    assert to_ascii("━━╸ │█") == "--- |#"


def test_control_characters_are_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = streams(monkeypatch, "utf-8")
    protect_streams()  # again changes nothing
    assert isinstance(sys.stdout, PlainStream)
    print(HOSTILE)
    print("\r 50%", end="")  # a progress bar
    console = make_console(stderr=True)
    console.print(HOSTILE, markup=False, soft_wrap=True)
    out, err = (buffer.getvalue().decode() for buffer in buffers)
    assert out == r"a\x1b[31mb\x1b]0;title\x07\u202ec\x0dd\x9b2J" + "\n\r 50%"
    assert not set("\x1b\x07\u202e\x9b") & set(err) and r"a\x1b[31mb" in err


def test_consoles_keep_their_own_movements_of_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    _, written = streams(monkeypatch, "utf-8")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr.rich_proxied_file, "isatty", lambda: True, raising=False)  # type: ignore[attr-defined]
    console = make_console(stderr=True)
    with Live(Text("one\ntwo"), console=console, auto_refresh=False) as live:
        live.update(Text(HOSTILE), refresh=True)
    err = written.getvalue().decode()
    assert "\x1b[?25l" in err and "\x1b[2K" in err and "\x1b[31m" not in err and r"\x1b[31m" in err


def test_an_error_with_escapes_in_a_file_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["leadline", "run", "evil\x1b]0;x\x07.yaml"])
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back afterwards
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit):
        main()
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a\x1b[31m"}, "name: "),
        ({"arms": {"a\x1b[31m": {"network": "mlp"}}}, "control character; rename the arm"),
        ({"arms": {"a\u202eb": {"network": "mlp"}}}, "control character; rename the arm"),
        ({"vary": {"wid\x1bth": [1, 2]}}, "contains a control character"),
        ({"vary": {"activation": ["relu", "a\u202eb"]}}, "contains a control character"),
    ],
)
def test_names_hold_no_control_characters(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        load_study({"name": "own", "arms": {"a": {"network": "mlp"}}, **change})
    assert not set("\x1b\u202e") & set(str(error.value))


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "-2+3", "=", "-"])
def test_no_text_of_a_csv_file_is_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    table = Table("t", "t", (Column("H", ("=key",), str),), ({"=key": text},))
    assert to_csv(table).startswith("'=key\n") and f"'{text}" in to_csv(table)
    for kind in (object, "string", "category"):
        frame = pd.DataFrame({"@a": pd.Series([text, None, "x"], dtype=kind), "b": [-1.5, 2, float("nan")]})
        read = pd.read_csv(io.StringIO(frame_to_csv(frame), newline=""), lineterminator="\n")
        assert list(read.columns) == ["'@a", "b"]
        assert read["'@a"].tolist()[0] == f"'{text}" and read["'@a"].isna().tolist() == [False, True, False]
        assert read["b"].tolist()[:2] == [-1.5, 2.0]


def test_numbers_of_a_csv_file_stay_numbers() -> None:
    assert [csv_cell(value) for value in (-1.5, "-1.5", "+2e3", None, True)] == [-1.5, "-1.5", "+2e3", None, True]
    assert frame_to_csv(pd.DataFrame({"a": [-1, 2], "b": [True, False]})) == "a,b\n-1,True\n2,False\n"
    assert frame_to_csv(pd.DataFrame()) == pd.DataFrame().to_csv(index=False)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_files_have_the_permissions_of_the_users_new_files(tmp_path: Path) -> None:
    for mask in ("077", "002"):
        code = f"import os; os.umask(0o{mask}); from leadline.reports.charts.files import write_whole;"
        code += "from pathlib import Path; write_whole(Path('file'), b'x')"
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~int(mask, 8)
    with pytest.raises(OSError):
        write_whole(tmp_path / "none" / "file", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
