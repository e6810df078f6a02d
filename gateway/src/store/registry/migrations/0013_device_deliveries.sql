-- What was delivered to one device, for its page.

CREATE INDEX IF NOT EXISTS delivery_by_device ON delivery (device_id, id);
