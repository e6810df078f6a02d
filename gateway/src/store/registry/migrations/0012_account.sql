-- Operators that may not come in, and when their passwords were set: what was opened with an earlier one is over.
-- Tokens that end. From where something was done, and the audit read by who did it and to what.

ALTER TABLE operator ADD COLUMN enabled BIGINT NOT NULL DEFAULT 1;
ALTER TABLE operator ADD COLUMN updated_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE operator ADD COLUMN password_set_at BIGINT NOT NULL DEFAULT 0;
UPDATE operator SET updated_at = created_at, password_set_at = created_at;

ALTER TABLE api_token ADD COLUMN expires_at BIGINT;

ALTER TABLE audit ADD COLUMN origin TEXT NOT NULL DEFAULT '';
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE INDEX audit_by_subject ON audit (subject, id);
