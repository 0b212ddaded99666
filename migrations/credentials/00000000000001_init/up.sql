CREATE TABLE tenant_key (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    state VARCHAR(16) NOT NULL,
    wrapped LONGBLOB NOT NULL,
    made_at BIGINT NOT NULL
);

CREATE INDEX tenant_key_customer ON tenant_key (customer);

CREATE TABLE credential (
    reference VARCHAR(64) NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    endpoint VARCHAR(255) NOT NULL,
    version BIGINT NOT NULL,
    sealed LONGBLOB NOT NULL,
    made_at BIGINT NOT NULL
);
