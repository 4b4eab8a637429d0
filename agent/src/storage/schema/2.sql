-- Applications. Their state is what the inputs in `app_journal`, handled again from the snapshot on, lead to; the other
-- tables hold what happened, for questions.

CREATE TABLE app_journal (
    sequence BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    body TEXT NOT NULL
);

-- One row: the state after the input with this number.
CREATE TABLE app_snapshot (
    id BIGINT PRIMARY KEY,
    sequence BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    body TEXT NOT NULL
);

CREATE TABLE applications (
    app TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    manifest TEXT NOT NULL
);

-- What was registered: manifest as TOML, code by the hash of its archive.
CREATE TABLE definitions (
    app TEXT NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    manifest TEXT NOT NULL,
    code TEXT,
    actor TEXT NOT NULL,
    PRIMARY KEY (app, number)
);

-- Bodies are JSON.
CREATE TABLE versions (
    app TEXT NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    model TEXT,
    body TEXT NOT NULL,
    PRIMARY KEY (app, number)
);

CREATE TABLE app_aliases (
    app TEXT NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    alias TEXT NOT NULL,
    version BIGINT,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (app, number)
);

CREATE TABLE triggers (
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    paused SMALLINT NOT NULL,
    next_ms BIGINT,
    fired_ms BIGINT,
    PRIMARY KEY (app, name)
);

-- Triggers that fired, or why they did not.
CREATE TABLE fires (
    app TEXT NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    name TEXT NOT NULL,
    actor TEXT NOT NULL,
    skipped TEXT,
    PRIMARY KEY (app, number)
);
CREATE INDEX fires_time ON fires (at_ms);

CREATE TABLE notices (
    app TEXT NOT NULL,
    key TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    items BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    actor TEXT NOT NULL,
    PRIMARY KEY (app, key)
);

-- The body is JSON, and all that is known of the run.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    number BIGINT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    request TEXT,
    queued_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    node TEXT,
    decision TEXT,
    body TEXT NOT NULL
);
CREATE INDEX runs_app ON runs (app, number);
CREATE INDEX runs_time ON runs (queued_ms);
CREATE INDEX runs_request ON runs (app, request);

-- What runs read and wrote, by the hash under which it lies among the blobs.
CREATE TABLE artifacts (
    run TEXT NOT NULL,
    direction TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (run, direction, name)
);
CREATE INDEX artifacts_hash ON artifacts (hash);

CREATE TABLE transitions (
    app TEXT NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    state_before TEXT NOT NULL,
    state_after TEXT NOT NULL,
    cause TEXT NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (app, number)
);
CREATE INDEX transitions_time ON transitions (at_ms);
