from pathlib import Path


def write_tables(table: Path, base: str) -> None:
    print("table", table)
