"""The command: see the package."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.evidence.measuring import CONVERGENCE, measure
from benchmarks.evidence.page import write_page
from leadline.errors import LeadlineError, StoreError

HERE = Path(__file__).parent
CLAIMS, MEASURED = HERE / "claims.yaml", HERE / "measured.json"
PAGE = HERE.parents[1] / "docs" / "evidence.md"


def main() -> None:
    """Run what is asked for, read what is finished, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description="write docs/evidence.md")
    parser.add_argument("--runs", type=Path, help="folder of the store to read from")
    parser.add_argument("--run", action="store_true", help="run the studies first, or continue them")
    parser.add_argument(
        "--only",
        nargs="*",
        help="studies to run and read; default: those under `studies` in claims.yaml, and others only read",
    )
    options = parser.parse_args()
    if options.run and options.runs is None:
        parser.error("--run needs --runs FOLDER")
    claims = yaml.safe_load(CLAIMS.read_text())
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    usual = {entry["study"]: entry for entry in claims["studies"]}
    full = [*(entry["study"] for entry in claims["trained"]), *claims["fast"]["studies"]]  # run where they are named
    known = {name: {} for name in full} | usual
    if wrong := [name for name in options.only or () if name not in known]:
        parser.error(f"no study {', '.join(wrong)} in claims.yaml; there are {', '.join(known)}")
    shown = [one for claim in claims["claims"] for one in claim["shown"]]
    converging = {one["study"] for one in shown if one.get("metric") == CONVERGENCE.name}
    for name, entry in known.items() if options.runs else ():
        if name not in (options.only or known):
            continue
        if options.run and name in (options.only or usual):
            changes = [part for key, value in entry.get("set", {}).items() for part in ("--set", f"{key}={value}")]
            changes += entry.get("options", [])
            command = [sys.executable, "-m", "leadline", "run", name, "--runs", str(options.runs), *changes]
            subprocess.run(command, check=False)  # the rest is run where one fails
        try:
            measured[name] = measure(name, options.runs, convergence=name in converging)
        except StoreError:
            print(f"{name}: not in {options.runs}")
        except (LeadlineError, ValueError) as problem:
            print(f"{name}: {problem}")
    MEASURED.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(write_page(claims, measured))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
