-- The snapshot before the last: what happened since then can be carried out again.
ALTER TABLE snapshots ADD COLUMN before_sequence BIGINT;
ALTER TABLE snapshots ADD COLUMN before_at_ms BIGINT;
ALTER TABLE snapshots ADD COLUMN before_body BYTEA;
