"""The tables of a run's database."""

from __future__ import annotations

import sqlite3

__all__ = ["APPLICATION_ID", "PAGE_BYTES", "SCHEMA_VERSION", "build"]

SCHEMA_VERSION = 3
APPLICATION_ID = 0x5374696C  # "Stil"
PAGE_BYTES = 4096

_SCHEMA = """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal INTEGER NOT NULL);

CREATE TABLE rows (
    row INTEGER PRIMARY KEY,       -- its place in the input, from 0
    digest INTEGER NOT NULL,       -- of the row as it was when it was sent
    state INTEGER NOT NULL,        -- QUEUED (to be generated again), DONE or FAILED
    kind TEXT,                     -- of the error; NULL if there is none
    made INTEGER NOT NULL,         -- how many generations there are
    result TEXT NOT NULL,          -- the columns that the output gets, as JSON
    finished REAL NOT NULL,        -- when, in seconds since 1970
    seconds REAL,                  -- how long the call took; 0 without one, NULL for a batch
    input_tokens INTEGER,          -- as far as the backend said
    output_tokens INTEGER,         -- reasoning included
    cached_tokens INTEGER,         -- of the input, what was read from the provider's cache
    written_tokens INTEGER,        -- of the input, what was written to it
    written_1h_tokens INTEGER,     -- of these, what is kept for an hour
    cost REAL,                     -- in USD, where the provider itself says it
    billed_input_tokens INTEGER,   -- what it bills, where it says that this is another count
    billed_output_tokens INTEGER,
    seal INTEGER NOT NULL          -- of all of these
);
CREATE INDEX failures ON rows (kind) WHERE kind IS NOT NULL;

CREATE TABLE sessions (
    session INTEGER PRIMARY KEY,
    started REAL NOT NULL,
    ended REAL,                    -- NULL while it works, and if it was killed
    outcome TEXT,                  -- complete, interrupted, stopped, or waiting for batches
    process INTEGER NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,         -- of stillhouse
    command TEXT NOT NULL,         -- as in `info`, in case that damage hits it there
    seal INTEGER NOT NULL          -- of all of these
);
"""


def build(connection: sqlite3.Connection) -> None:
    """Create the tables of a run in an empty database."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    )
