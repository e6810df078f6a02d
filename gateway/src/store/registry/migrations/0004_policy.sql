-- Tasks with a policy: made from a filter, promoted from their canary, kept for a time.

-- Whom a task is made for, where that is no list; JSON.
ALTER TABLE task ADD COLUMN filter TEXT;
-- Why it could not be made.
ALTER TABLE task ADD COLUMN creation_error TEXT;
ALTER TABLE task ADD COLUMN promoted_at BIGINT;
-- Deliveries that ended and are not kept any more, by how they ended.
ALTER TABLE task ADD COLUMN past_delivered BIGINT NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN past_failed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX task_by_end ON task (finished_at) WHERE finished_at IS NOT NULL;

-- The attempt that an operator last asked for, or the first one: those after it came by themselves.
ALTER TABLE delivery ADD COLUMN round BIGINT NOT NULL DEFAULT 1;
