-- Applications, their secrets and the devices that are bound to them.

CREATE TABLE application (
    id TEXT NOT NULL PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES account (id),
    name TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- SHA-256 of 256 random bits: what is stored opens nothing.
CREATE TABLE application_secret (
    app_id TEXT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
    slot TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, slot)
);

CREATE TABLE app_device (
    app_id TEXT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
    bound_at BIGINT NOT NULL,
    PRIMARY KEY (app_id, device_id)
);
CREATE INDEX app_device_by_device ON app_device (device_id, app_id);
