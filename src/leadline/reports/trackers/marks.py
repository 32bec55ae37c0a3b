"""A file in a run's folder that says what the folder holds, for trackers whose runs are folders."""

import json
from collections.abc import Iterable
from pathlib import Path

MARK = "leadline.json"


def write_mark(folder: Path, study: str, run: str, digest: str = "") -> None:
    """Say that a folder holds a study's run, by its id; to its end if there is a digest."""
    (folder / MARK).write_text(json.dumps({"study": study, "id": run, "digest": digest}) + "\n", encoding="utf-8")


def find_marks(folders: Iterable[Path], study: str) -> dict[str, tuple[Path, str]]:
    """Return id -> folder and digest of a study's runs; a folder whose mark is damaged holds none."""
    found = {}
    for folder in folders:
        try:
            mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(mark, dict) and mark.get("study") == study:
            found[str(mark["id"])] = folder, str(mark["digest"])
    return found
