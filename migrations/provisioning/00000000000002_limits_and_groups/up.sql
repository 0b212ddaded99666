-- Limits of accounts, and jobs made of jobs. Jobs without either get no row and no index entry more than before.

-- `kind` is empty where a limit counts every kind. What people set stands beside what was learned from the provider.
CREATE TABLE job_limit (
    account BIGINT NOT NULL,
    kind VARCHAR(32) NOT NULL,
    customer BIGINT NOT NULL,
    together INTEGER,
    starts INTEGER,
    per_secs INTEGER,
    burst INTEGER,
    made_by VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    spent_until BIGINT NOT NULL,
    learned_rate BIGINT,
    learned_at BIGINT,
    retry_at BIGINT,
    touched_at BIGINT NOT NULL,
    PRIMARY KEY (account, kind)
);
CREATE INDEX job_limit_customer ON job_limit (customer, account, kind);

-- One row a job of a limited account, from its first look at the limit to its end.
CREATE TABLE turn (
    job VARCHAR(32) NOT NULL PRIMARY KEY,
    account BIGINT NOT NULL,
    kind VARCHAR(32) NOT NULL,
    state VARCHAR(8) NOT NULL,
    behind INTEGER NOT NULL,
    id BIGINT NOT NULL
);
CREATE INDEX turn_line ON turn (account, state, behind, id, kind);

-- One row a child. `done` follows the child's end in the same commit.
CREATE TABLE child (
    parent BIGINT NOT NULL,
    id BIGINT NOT NULL,
    job VARCHAR(32) NOT NULL,
    done BOOLEAN NOT NULL,
    PRIMARY KEY (parent, id)
);
CREATE INDEX child_open ON child (parent, done, id);

ALTER TABLE job ADD COLUMN parent BIGINT;
ALTER TABLE job ADD COLUMN limited BOOLEAN NOT NULL DEFAULT FALSE;
