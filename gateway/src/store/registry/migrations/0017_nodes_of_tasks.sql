-- Deliveries over several nodes.

-- The claim of the session in whose hands a delivery is: a node with a smaller one changes nothing any more.
ALTER TABLE delivery ADD COLUMN session_epoch BIGINT NOT NULL DEFAULT 0;
-- Devices that may begin by the task's pace, in thousandths, and when they were counted.
ALTER TABLE task ADD COLUMN pace_thousandths BIGINT NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN paced_at BIGINT;

-- What one node has of a task whose policy bounds it: renewed every second, forgotten with the node.
CREATE TABLE task_share (
    task_id BIGINT NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    node TEXT NOT NULL,
    -- Deliveries that may be in progress there, those that are, and those that wait there.
    places BIGINT NOT NULL,
    in_progress BIGINT NOT NULL,
    waiting BIGINT NOT NULL,
    -- Devices that may begin there, or have begun without a record of it.
    permits BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (task_id, node)
);

-- Work that one node does at a time.
CREATE TABLE lease (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    ends_at BIGINT NOT NULL
);
