"""A process that upgrades a store slowly, until it is killed (see test_sqlite_migrations.py).

The step makes a table, says so, and goes on writing rows for a minute.
"""

import os
import sqlite3
import sys
from pathlib import Path

from meshnode.adapters.sqlite_migrations import MIGRATIONS, migrate


def say(text: str) -> None:
    """Tell whoever watches."""
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("say", 1, say)
    slow = """INSERT INTO more SELECT n FROM (
        WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted)
        SELECT n FROM counted LIMIT 1000000000)"""
    step = ("CREATE TABLE more (x)", "INSERT INTO more VALUES (0)", "SELECT say('half')", slow)
    migrate(connection, path, [*MIGRATIONS, step])
