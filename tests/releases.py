"""Stores as earlier releases left them, with a few rows in every table."""

from pathlib import Path

from rec_engine.data.database import opened

RELEASES = Path(__file__).parent / "data" / "releases"


def fill_with_release(url: str, release: str) -> None:
    dialect = "sqlite" if url.startswith("sqlite") else "postgresql"
    lines = (RELEASES / release / f"{dialect}.sql").read_text(encoding="utf-8")
    lines = lines.replace("BEGIN TRANSACTION;", "").replace("COMMIT;", "")
    with opened(url) as (_, writer, _, _), writer.begin() as connection:
        for statement in lines.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
