-- Certificates of devices, what people note about a device, and registration in batches.

ALTER TABLE device ADD COLUMN description TEXT NOT NULL DEFAULT '';

-- SHA-256 of the certificates that a device may come with. Several devices may share one: the name says which it is.
CREATE TABLE device_fingerprint (
    device_id TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    slot TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (device_id, slot)
);

-- A file of devices to be registered. Rows are committed in order; next_row is the first that is not.
CREATE TABLE device_batch (
    id BIGINT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    -- SHA-256 of the file: the same one sent again is the same batch.
    sha256 BLOB NOT NULL,
    size BIGINT NOT NULL,
    total BIGINT NOT NULL,
    next_row BIGINT NOT NULL,
    created BIGINT NOT NULL,
    unchanged BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    -- Why the whole batch failed.
    error TEXT,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    -- When its result stops to show secrets; NULL: it is not finished, or shows none.
    secrets_until BIGINT
);
CREATE INDEX device_batch_by_sha256 ON device_batch (sha256);
CREATE INDEX device_batch_by_state ON device_batch (state, id);

-- What came of each row. state: 0 created, 1 unchanged, 2 failed.
CREATE TABLE device_batch_row (
    batch_id BIGINT NOT NULL REFERENCES device_batch (id),
    -- Place among the rows of the file, from 0, and line, from 1.
    row_index BIGINT NOT NULL,
    line BIGINT NOT NULL,
    state BIGINT NOT NULL,
    product_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    device_id TEXT,
    code TEXT,
    message TEXT,
    -- When the device got the secret that was made for it; the result shows it while the device still has that one.
    secret_made_at BIGINT,
    PRIMARY KEY (batch_id, row_index)
);
CREATE INDEX device_batch_row_by_state ON device_batch_row (batch_id, state, row_index);
