-- What lists show and look for, without counting or reading what they do not show.

-- How many deliveries of a task are in each state, changed together with them.
ALTER TABLE task ADD COLUMN n_pending BIGINT NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN n_pushed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN n_delivering BIGINT NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN n_delivered BIGINT NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN n_failed BIGINT NOT NULL DEFAULT 0;
UPDATE task SET
    n_pending = (SELECT COUNT(*) FROM delivery WHERE task_id = task.id AND state = 0),
    n_pushed = (SELECT COUNT(*) FROM delivery WHERE task_id = task.id AND state = 1),
    n_delivering = (SELECT COUNT(*) FROM delivery WHERE task_id = task.id AND state = 2),
    n_delivered = (SELECT COUNT(*) FROM delivery WHERE task_id = task.id AND state = 3),
    n_failed = (SELECT COUNT(*) FROM delivery WHERE task_id = task.id AND state = 4);
-- The state before the latest step, so that the statement which makes a step also says from where it was made.
ALTER TABLE delivery ADD COLUMN stepped_from BIGINT NOT NULL DEFAULT 0;
CREATE INDEX task_by_product ON task (product_id, id);

-- Devices by how their names begin, and those that are frozen.
CREATE INDEX device_by_id_text ON device (LOWER(id), id);
CREATE INDEX device_by_node_text ON device (LOWER(node_id), id);
CREATE INDEX device_by_name_text ON device (LOWER(name), id) WHERE name <> '';
CREATE INDEX device_frozen ON device (id) WHERE enabled = 0;
CREATE INDEX device_frozen_by_product ON device (product_id, id) WHERE enabled = 0;

-- What was done by its noun, "device." for "device.freeze"; and by what it was.
ALTER TABLE audit ADD COLUMN noun TEXT NOT NULL DEFAULT '';
UPDATE audit SET noun = rtrim(action, 'abcdefghijklmnopqrstuvwxyz_');
CREATE INDEX audit_by_noun ON audit (noun, id);
CREATE INDEX audit_by_action ON audit (action, id);

-- What devices sent, by its name.
CREATE INDEX device_resource_by_name ON device_resource (name, id);
