-- When an API token was last used; NULL: never.

ALTER TABLE api_token ADD COLUMN last_used_at BIGINT;
