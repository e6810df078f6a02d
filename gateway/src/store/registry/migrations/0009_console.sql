-- Sessions of operators in the console, and who has ever signed in.

ALTER TABLE operator ADD COLUMN last_sign_in_at BIGINT;

-- SHA-256 of the cookie's 256 random bits: what is stored opens nothing.
CREATE TABLE operator_session (
    digest BLOB NOT NULL PRIMARY KEY,
    operator_id BIGINT NOT NULL REFERENCES operator (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX operator_session_by_operator ON operator_session (operator_id, created_at);
CREATE INDEX operator_session_by_time ON operator_session (seen_at);
