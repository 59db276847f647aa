"""A migration guarded by its fencing token: ``python migrate.py REPOSITORY DATABASE``.

A lock is a lease. A process that is stopped for longer than its lease, and goes on without a look at the lock, works without
it. So the database itself compares: it keeps the highest token it has seen, and takes no lower one.
"""

import sqlite3
import sys

import gitlock

MIGRATIONS = [
    "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
    "ALTER TABLE customer ADD COLUMN country TEXT",
]


class Stale(Exception):
    """Somebody with a newer token has been here."""


def migrate(database: sqlite3.Connection, token: int) -> int:
    """Makes what is missing, each step with the token in one transaction. Returns how many steps that were."""
    database.isolation_level = None
    database.execute("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL, token INTEGER NOT NULL)")
    database.execute("INSERT INTO schema SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM schema)")
    done = 0
    while True:
        database.execute("BEGIN IMMEDIATE")
        try:
            if database.execute("UPDATE schema SET token = ? WHERE token <= ?", (token, token)).rowcount == 0:
                raise Stale(f"token {token} is stale: the lock was lost, and somebody else has been at it")
            (version,) = database.execute("SELECT version FROM schema").fetchone()
            if version < len(MIGRATIONS):
                database.execute(MIGRATIONS[version])
                database.execute("UPDATE schema SET version = version + 1")
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        if version >= len(MIGRATIONS):
            return done
        done += 1


def main(repository: str, path: str) -> None:
    with gitlock.LockManager(repository).lock("migrate", reason="the schema") as lock:
        print(f"{migrate(sqlite3.connect(path, timeout=60), lock.token)} steps under token {lock.token}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
