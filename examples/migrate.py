"""Migrates a database under a lock, so that one who has lost the lock can't write.

Run it from several places at once: `python3 examples/migrate.py DATABASE`. Each migration is made once, and a
process that is stopped past its lease (Ctrl-Z for half a minute) is refused by the database when it goes on.
"""

import sqlite3
import sys

import gitlock

MIGRATIONS = ["CREATE TABLE users (name TEXT)", "ALTER TABLE users ADD COLUMN mail TEXT", "CREATE INDEX mails ON users (mail)"]


def migrate(database: sqlite3.Connection, token: int) -> None:
    for version, statement in enumerate(MIGRATIONS, start=1):
        # In one transaction: the token is compared, remembered, and used.
        database.execute("BEGIN IMMEDIATE")
        highest, done = database.execute("SELECT token, version FROM migrated").fetchone()
        if token < highest:
            database.execute("ROLLBACK")
            sys.exit(f"this process had token {token}, and one with {highest} came after it: nothing was changed")
        if done < version:
            database.execute(statement)
            print(f"version {version}")
        database.execute("UPDATE migrated SET token = ?, version = max(version, ?)", (token, version))
        database.execute("COMMIT")


def main() -> None:
    database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
    database.execute("CREATE TABLE IF NOT EXISTS migrated (token INTEGER, version INTEGER)")
    database.execute("INSERT INTO migrated SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM migrated)")
    with gitlock.LockManager(".").lock("migrate", reason="migrate the database") as lock:
        migrate(database, lock.token)


main()
