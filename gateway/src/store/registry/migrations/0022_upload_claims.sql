-- Uploads over several nodes.

-- Which taking of an unfinished upload is the last one: a node with a smaller one changes nothing any more.
ALTER TABLE device_resource ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
-- Bytes that the node with the upload had when it last said so, and when that was by the database's clock.
ALTER TABLE device_resource ADD COLUMN received BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device_resource ADD COLUMN noted_at BIGINT NOT NULL DEFAULT 0;
UPDATE device_resource SET noted_at = created_at WHERE state = 0;
