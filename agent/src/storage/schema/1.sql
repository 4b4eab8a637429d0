-- Times are unix milliseconds. Sequences are given by the one process that writes.

-- Everything that happened. Bodies are encoded messages.
CREATE TABLE journal (
    sequence BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    cluster TEXT NOT NULL,
    kind TEXT NOT NULL,
    decision_id TEXT,
    body BYTEA NOT NULL
);
CREATE INDEX journal_cluster ON journal (cluster, sequence);
CREATE INDEX journal_kind ON journal (kind, sequence);
CREATE INDEX journal_time ON journal (at_ms, sequence);
CREATE INDEX journal_decision ON journal (decision_id, sequence) WHERE decision_id IS NOT NULL;

-- One row for each live cluster: what its entries after `sequence` continue.
-- Without a body that is nothing, and the next entry is the one that registered it.
CREATE TABLE snapshots (
    cluster TEXT PRIMARY KEY,
    registered BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    body BYTEA
);

-- The bytes of a policy lie in the blob folder under its id, their SHA-256.
CREATE TABLE policies (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    size BIGINT NOT NULL,
    uploaded_at_ms BIGINT NOT NULL,
    uploaded_by TEXT NOT NULL,
    note TEXT NOT NULL
);

-- Each row is a change; the last one holds. Without a policy the alias names none.
CREATE TABLE aliases (
    sequence BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    alias TEXT NOT NULL,
    policy TEXT,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL
);
CREATE INDEX aliases_alias ON aliases (alias, sequence);

-- Each row is a change; the last one holds. The scope is a cluster or empty, the value JSON; without one, the default
-- holds.
CREATE TABLE settings (
    sequence BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL
);
CREATE INDEX settings_key ON settings (scope, key, sequence);

-- Who did what, or tried to. Each hash covers the one before.
CREATE TABLE audit (
    sequence BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    role TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    allowed SMALLINT NOT NULL,
    hash BYTEA NOT NULL
);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    hash BYTEA NOT NULL,
    created_at_ms BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at_ms BIGINT,
    revoked_at_ms BIGINT
);
