-- The registry's first tables. One text for SQLite and PostgreSQL: BIGINT for every number (times are milliseconds
-- since 1970, booleans 0 and 1), TEXT for names, BLOB for bytes (read as BYTEA by PostgreSQL).

CREATE TABLE account (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);
INSERT INTO account (id, name, created_at) VALUES (1, 'default', 0);

CREATE TABLE operator (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE api_token (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE product (
    id TEXT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- What is only ever read and written whole: transports, authentication kinds, forms, topic policy.
    rules TEXT NOT NULL,
    confirm TEXT NOT NULL,
    trust_done BIGINT NOT NULL,
    reachable_after_uplink_secs BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE device (
    id TEXT NOT NULL PRIMARY KEY,
    product_id TEXT NOT NULL REFERENCES product (id),
    node_id TEXT NOT NULL,
    name TEXT NOT NULL,
    auth TEXT NOT NULL,
    psk_encoding TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    UNIQUE (product_id, node_id)
);
CREATE INDEX device_by_product ON device (product_id, id);

-- Every string that names a device, whatever kind of name it is; looked up whole.
CREATE TABLE device_alias (
    alias TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE
);
CREATE INDEX device_alias_by_device ON device_alias (device_id);

CREATE TABLE device_credential (
    device_id TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    slot TEXT NOT NULL,
    -- Which key sealed it, to find what a rotation has left.
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (device_id, slot)
);

-- Bytes that some version of a resource refers to. A file that is not named here belongs to nobody.
CREATE TABLE blob (
    id TEXT NOT NULL PRIMARY KEY,
    sha256 BLOB NOT NULL UNIQUE,
    size BIGINT NOT NULL,
    refs BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE resource (
    id BIGINT NOT NULL PRIMARY KEY,
    product_id TEXT NOT NULL REFERENCES product (id),
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- The current version, and its size and digests for lists and the quota.
    version BIGINT NOT NULL,
    size BIGINT NOT NULL,
    sha256 BLOB NOT NULL,
    md5 BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (product_id, name)
);
CREATE INDEX resource_by_product ON resource (product_id, id);

CREATE TABLE resource_version (
    resource_id BIGINT NOT NULL REFERENCES resource (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    size BIGINT NOT NULL,
    sha256 BLOB NOT NULL,
    md5 BLOB NOT NULL,
    part_digests BLOB NOT NULL,
    blob_id TEXT NOT NULL REFERENCES blob (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (resource_id, version)
);

-- A task outlives its resource and its product: what it did stays readable.
CREATE TABLE task (
    id BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    resource_id BIGINT NOT NULL,
    resource_version BIGINT NOT NULL,
    product_id TEXT NOT NULL,
    creation TEXT NOT NULL,
    run TEXT NOT NULL,
    policy TEXT NOT NULL,
    total BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    created_by TEXT NOT NULL
);
CREATE INDEX task_by_resource ON task (resource_id, id);
CREATE INDEX task_by_run ON task (run, id);

-- The current attempt of each delivery. state: 0 pending, 1 pushed, 2 delivering, 3 delivered, 4 failed.
CREATE TABLE delivery (
    id BIGINT NOT NULL PRIMARY KEY,
    task_id BIGINT NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    device_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    state BIGINT NOT NULL,
    reason TEXT,
    detail TEXT,
    created_at BIGINT NOT NULL,
    pushed_at BIGINT,
    delivering_at BIGINT,
    finished_at BIGINT
);
CREATE INDEX delivery_by_task ON delivery (task_id, id, state);
CREATE INDEX delivery_open ON delivery (device_id) WHERE state < 3;

-- Attempts before the current one.
CREATE TABLE delivery_attempt (
    delivery_id BIGINT NOT NULL REFERENCES delivery (id) ON DELETE CASCADE,
    attempt BIGINT NOT NULL,
    state BIGINT NOT NULL,
    reason TEXT,
    detail TEXT,
    created_at BIGINT NOT NULL,
    pushed_at BIGINT,
    delivering_at BIGINT,
    finished_at BIGINT,
    PRIMARY KEY (delivery_id, attempt)
);

CREATE TABLE audit (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at);

CREATE TABLE setting (
    key TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
);
