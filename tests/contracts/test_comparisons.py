"""Arms of two studies of one store are compared alike whatever the database: SQLite in a file, and PostgreSQL."""

from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

import leadline as ll
from leadline.store.schema import VERSION_TABLE, metadata

ARMS = {
    "plain": {"network": {"family": "mlp", "hidden": 2, "width": 16}},
    "residual": {"network": {"family": "mlp", "hidden": 2, "width": 16, "shortcut": "A"}},
}


def verdicts(runs: Path, url: str | None) -> list[Any]:
    """Train two studies, and compare their arms."""
    data = {"name": "digits", "train": 100, "test": 200}
    for name, batch in (("one", 32), ("two", 64)):
        training = {"epochs": 3, "batch_size": batch, "optimizer": {"name": "adam", "learning_rate": 0.01}}
        spec = {"name": name, "data": data, "training": training, "arms": ARMS, "seeds": 3}
        ll.Study.load(spec).run(runs, store=url, workers=0)
    across = ll.compare(["one/residual", "two/residual"], runs=runs, store=url).to_json()
    within = ll.compare(["one/plain", "one/residual"], runs=runs, store=url).to_json()
    own = ll.Results.open("one", runs, store=url).verdict().to_json()
    named = ("a", "b", "sentence", "details")
    for one, two in zip(within["contrasts"], own["contrasts"], strict=True):
        assert {key: one[key] for key in one if key not in named} == {key: two[key] for key in two if key not in named}
    return [across["reading"], across["contrasts"]]


def test_arms_of_two_studies_in_one_store(postgresql: str, tmp_path: Path) -> None:
    engine = create_engine(postgresql)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
    engine.dispose()
    in_file, on_server = verdicts(tmp_path / "file", None), verdicts(tmp_path / "server", postgresql)
    assert in_file == on_server
    assert "Trials differ in training.batch_size (64 and 32)." in in_file[0]
    assert in_file[1][0]["n"] == 3
