-- What had failed and what had been delivered of a task when an operator last tried again: those count no more
-- against its abort threshold.
ALTER TABLE task ADD COLUMN settled_failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN settled_delivered INTEGER NOT NULL DEFAULT 0;
