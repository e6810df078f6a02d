-- What devices upload. A row is there from the announcement on; state 0: its bytes come, 1: they are stored.
-- Neither the device nor the product is referred to: what a device sent outlives it.

CREATE TABLE device_resource (
    id BIGINT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    device_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    node_id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- Counted for each name of a device; that of an unfinished one is not known before its end.
    version BIGINT NOT NULL,
    state BIGINT NOT NULL,
    size BIGINT NOT NULL,
    -- As announced, and where nothing was announced, as stored.
    md5 BLOB,
    sha256 BLOB,
    blob_id TEXT REFERENCES blob (id),
    created_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX device_resource_by_device ON device_resource (device_id, id);
CREATE INDEX device_resource_by_product ON device_resource (product_id, id);
CREATE INDEX device_resource_open ON device_resource (id) WHERE state = 0;
CREATE INDEX device_resource_by_end ON device_resource (finished_at) WHERE state = 1;

-- How much there is, changed together with the rows: counting them would cost more with each.
CREATE TABLE upload_usage (
    account_id BIGINT NOT NULL PRIMARY KEY REFERENCES account (id),
    uploads BIGINT NOT NULL,
    bytes BIGINT NOT NULL
);
INSERT INTO upload_usage (account_id, uploads, bytes) VALUES (1, 0, 0);
