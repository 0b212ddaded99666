-- Portable between SQLite and MariaDB (utf8mb4_bin). Times are microseconds since 1970 in the database's clock.
-- Uids are 32 hexadecimal digits. No column of a unique key is nullable.

CREATE TABLE node (
    boot VARCHAR(32) NOT NULL PRIMARY KEY,
    role VARCHAR(16) NOT NULL,
    beat BIGINT NOT NULL,
    state VARCHAR(8) NOT NULL,
    started_at BIGINT NOT NULL
);

CREATE TABLE sequencer (
    name VARCHAR(32) NOT NULL PRIMARY KEY,
    next_key BIGINT NOT NULL
);

CREATE TABLE setting (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE customer (
    id BIGINT NOT NULL PRIMARY KEY,
    name VARCHAR(128) NOT NULL,
    currency VARCHAR(8) NOT NULL,
    time_zone VARCHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE cloud (
    id BIGINT NOT NULL PRIMARY KEY,
    name VARCHAR(128) NOT NULL,
    provider VARCHAR(64) NOT NULL,
    driver VARCHAR(32) NOT NULL,
    endpoint VARCHAR(255) NOT NULL,
    private_cloud BOOLEAN NOT NULL,
    status VARCHAR(16) NOT NULL
);

CREATE TABLE account (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    cloud BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    account_number VARCHAR(128) NOT NULL,
    credential VARCHAR(64) NOT NULL,
    default_budget BIGINT NOT NULL,
    owner BIGINT NOT NULL,
    status VARCHAR(16) NOT NULL
);
CREATE INDEX account_customer ON account (customer);

CREATE TABLE region (
    id BIGINT NOT NULL PRIMARY KEY,
    cloud BIGINT NOT NULL,
    customer BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    jurisdiction VARCHAR(8) NOT NULL,
    provider_id VARCHAR(128) NOT NULL,
    status VARCHAR(16) NOT NULL
);

CREATE TABLE data_center (
    id BIGINT NOT NULL PRIMARY KEY,
    region BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    provider_id VARCHAR(128) NOT NULL,
    status VARCHAR(16) NOT NULL
);

CREATE TABLE server_product (
    id BIGINT NOT NULL PRIMARY KEY,
    cloud BIGINT NOT NULL,
    region BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    provider_id VARCHAR(128) NOT NULL,
    architecture VARCHAR(8) NOT NULL,
    platform VARCHAR(16) NOT NULL,
    cpu_count INTEGER NOT NULL,
    cpu_mhz INTEGER NOT NULL,
    ram_mb INTEGER NOT NULL,
    disk_gb INTEGER NOT NULL,
    hourly_rate DOUBLE NOT NULL,
    currency VARCHAR(8) NOT NULL
);

CREATE TABLE machine_image (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    cloud BIGINT NOT NULL,
    region BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    provider_id VARCHAR(128) NOT NULL,
    platform VARCHAR(16) NOT NULL,
    architecture VARCHAR(8) NOT NULL,
    owner_number VARCHAR(128) NOT NULL,
    agent_version BIGINT NOT NULL,
    budget BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    status VARCHAR(16) NOT NULL
);

CREATE TABLE billing_code (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    finance_code VARCHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    budget_state VARCHAR(16) NOT NULL,
    soft_quota DOUBLE,
    hard_quota DOUBLE,
    currency VARCHAR(8) NOT NULL
);
CREATE INDEX billing_code_customer ON billing_code (customer);

CREATE TABLE user_group (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    status VARCHAR(16) NOT NULL
);

CREATE TABLE role (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    status VARCHAR(16) NOT NULL,
    acl TEXT NOT NULL
);

CREATE TABLE role_assignment (
    customer BIGINT NOT NULL,
    user_group BIGINT NOT NULL,
    account BIGINT NOT NULL,
    role BIGINT NOT NULL,
    PRIMARY KEY (user_group, account)
);

CREATE TABLE person (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    given_name VARCHAR(64) NOT NULL,
    family_name VARCHAR(64) NOT NULL,
    email VARCHAR(128) NOT NULL,
    login VARCHAR(64) NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    time_zone VARCHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL
);
CREATE UNIQUE INDEX person_login ON person (login);

CREATE TABLE person_group (
    person BIGINT NOT NULL,
    user_group BIGINT NOT NULL,
    PRIMARY KEY (person, user_group)
);

CREATE TABLE session (
    token_hash VARCHAR(64) NOT NULL PRIMARY KEY,
    person BIGINT NOT NULL,
    csrf VARCHAR(64) NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE saved_view (
    person BIGINT NOT NULL,
    name VARCHAR(64) NOT NULL,
    query TEXT NOT NULL,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (person, name)
);

CREATE TABLE plan (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    person BIGINT NOT NULL,
    act VARCHAR(16) NOT NULL,
    query TEXT NOT NULL,
    jobs MEDIUMTEXT NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    done_at BIGINT,
    result MEDIUMTEXT
);
CREATE INDEX plan_expires ON plan (expires_at);

CREATE TABLE api_key (
    access_key VARCHAR(64) NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    person BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    sealed_secret LONGBLOB NOT NULL,
    state VARCHAR(16) NOT NULL,
    activated_at BIGINT NOT NULL,
    expires_at BIGINT
);

CREATE TABLE replay (
    access_key VARCHAR(64) NOT NULL,
    value VARCHAR(64) NOT NULL,
    request VARCHAR(32) NOT NULL,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (access_key, value)
);
CREATE INDEX replay_made ON replay (made_at);

CREATE TABLE idem (
    customer BIGINT NOT NULL,
    access_key VARCHAR(64) NOT NULL,
    idem_key VARCHAR(255) NOT NULL,
    body_hash VARCHAR(64) NOT NULL,
    job VARCHAR(32),
    status INTEGER NOT NULL,
    created_id BIGINT,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (customer, access_key, idem_key)
);
CREATE INDEX idem_made ON idem (made_at);

CREATE TABLE job (
    uid VARCHAR(32) NOT NULL PRIMARY KEY,
    id BIGINT NOT NULL,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    person BIGINT NOT NULL,
    access_key VARCHAR(64) NOT NULL,
    request VARCHAR(32) NOT NULL,
    kind VARCHAR(32) NOT NULL,
    params MEDIUMTEXT NOT NULL,
    description VARCHAR(255) NOT NULL,
    state VARCHAR(16) NOT NULL,
    epoch BIGINT NOT NULL,
    owner VARCHAR(32),
    try_no INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    undo_begun BOOLEAN NOT NULL,
    cancel_by VARCHAR(128),
    due_at BIGINT,
    why_code VARCHAR(32) NOT NULL,
    why TEXT NOT NULL,
    server BIGINT,
    resource VARCHAR(128),
    message TEXT,
    priority INTEGER NOT NULL,
    created_at BIGINT NOT NULL,
    claimed_at BIGINT,
    changed_at BIGINT NOT NULL,
    deadline BIGINT NOT NULL,
    ended_at BIGINT,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX job_id ON job (id);
CREATE INDEX job_customer ON job (customer, id);
CREATE INDEX job_open ON job (ended_at, owner, due_at, state);
CREATE INDEX job_changed ON job (changed_at);
CREATE INDEX job_server ON job (server, id);
CREATE INDEX job_state ON job (customer, state, id);

CREATE TABLE pause (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    kind VARCHAR(32),
    account BIGINT,
    made_by VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL,
    made_at BIGINT NOT NULL
);
CREATE INDEX pause_customer ON pause (customer, id);

CREATE TABLE schedule (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    person BIGINT NOT NULL,
    name VARCHAR(64) NOT NULL,
    cron VARCHAR(128) NOT NULL,
    params MEDIUMTEXT NOT NULL,
    description VARCHAR(255) NOT NULL,
    priority INTEGER NOT NULL,
    time_limit BIGINT NOT NULL,
    misfire VARCHAR(8) NOT NULL,
    enabled BOOLEAN NOT NULL,
    next_at BIGINT,
    last_at BIGINT,
    last_job BIGINT,
    made_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX schedule_name ON schedule (customer, name);
CREATE INDEX schedule_next ON schedule (next_at);

CREATE TABLE attempt (
    uid VARCHAR(32) NOT NULL PRIMARY KEY,
    job VARCHAR(32) NOT NULL,
    customer BIGINT NOT NULL,
    step VARCHAR(32) NOT NULL,
    variant INTEGER NOT NULL,
    try_no INTEGER NOT NULL,
    n INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    token VARCHAR(128) NOT NULL,
    request LONGBLOB NOT NULL,
    lease TEXT NOT NULL,
    outcome VARCHAR(8) NOT NULL,
    class VARCHAR(16),
    evidence TEXT NOT NULL,
    output TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    closed_at BIGINT,
    quiet_until BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX attempt_job ON attempt (job, started_at);

CREATE TABLE evidence (
    subject VARCHAR(32) NOT NULL,
    source VARCHAR(64) NOT NULL,
    job VARCHAR(32) NOT NULL,
    customer BIGINT NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    text TEXT NOT NULL,
    raw MEDIUMTEXT NOT NULL,
    made_at BIGINT NOT NULL,
    PRIMARY KEY (subject, source)
);
CREATE INDEX evidence_job ON evidence (job, made_at);

CREATE TABLE watch (
    uid VARCHAR(32) NOT NULL PRIMARY KEY,
    job VARCHAR(32) NOT NULL,
    customer BIGINT NOT NULL,
    step VARCHAR(32) NOT NULL,
    try_no INTEGER NOT NULL,
    kind VARCHAR(8) NOT NULL,
    target TEXT NOT NULL,
    expectation TEXT NOT NULL,
    owner VARCHAR(32),
    due_at BIGINT NOT NULL,
    deadline BIGINT NOT NULL,
    looks INTEGER NOT NULL,
    made_at BIGINT NOT NULL,
    done_at BIGINT
);
CREATE UNIQUE INDEX watch_step ON watch (job, step, try_no);
CREATE INDEX watch_open ON watch (done_at, kind, due_at);

CREATE TABLE outbox (
    id BIGINT NOT NULL PRIMARY KEY,
    exchange VARCHAR(64) NOT NULL,
    routing_key VARCHAR(128) NOT NULL,
    body MEDIUMTEXT NOT NULL,
    made_at BIGINT NOT NULL
);

CREATE TABLE obligation (
    tag VARCHAR(128) NOT NULL PRIMARY KEY,
    job VARCHAR(32) NOT NULL,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    region BIGINT NOT NULL,
    state VARCHAR(16) NOT NULL,
    owner VARCHAR(32),
    look_at BIGINT NOT NULL,
    look_until BIGINT NOT NULL,
    looks INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    found MEDIUMTEXT NOT NULL,
    record MEDIUMTEXT NOT NULL,
    made_at BIGINT NOT NULL,
    looked_at BIGINT,
    closed_at BIGINT,
    version BIGINT NOT NULL
);
CREATE INDEX obligation_due ON obligation (closed_at, look_at);
CREATE INDEX obligation_customer ON obligation (customer, made_at);
CREATE INDEX obligation_job ON obligation (job);

CREATE TABLE tag_sweep (
    account BIGINT NOT NULL,
    region BIGINT NOT NULL,
    customer BIGINT NOT NULL,
    owner VARCHAR(32),
    look_at BIGINT NOT NULL,
    looked_at BIGINT,
    version BIGINT NOT NULL,
    PRIMARY KEY (account, region)
);
CREATE INDEX tag_sweep_due ON tag_sweep (look_at);

CREATE TABLE server (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    account BIGINT NOT NULL,
    cloud BIGINT NOT NULL,
    region BIGINT NOT NULL,
    data_center BIGINT NOT NULL,
    product BIGINT NOT NULL,
    provider_product VARCHAR(128) NOT NULL,
    image BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    description VARCHAR(255) NOT NULL,
    provider_id VARCHAR(128) NOT NULL,
    job VARCHAR(32) NOT NULL,
    status VARCHAR(16) NOT NULL,
    platform VARCHAR(16) NOT NULL,
    architecture VARCHAR(8) NOT NULL,
    agent_version BIGINT NOT NULL,
    budget BIGINT NOT NULL,
    label VARCHAR(32),
    keypair VARCHAR(128),
    owner BIGINT NOT NULL,
    user_groups TEXT NOT NULL,
    private_ip VARCHAR(64),
    public_ip VARCHAR(64),
    started_at BIGINT NOT NULL,
    stopped_at BIGINT,
    terminate_after BIGINT,
    pause_after BIGINT,
    last_contact BIGINT,
    busy_by VARCHAR(32),
    changed_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX server_customer ON server (customer, region, id);
CREATE UNIQUE INDEX server_job ON server (job);

CREATE TABLE agent (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    job VARCHAR(32) NOT NULL,
    server BIGINT,
    token_hash VARCHAR(64) NOT NULL,
    token_expires BIGINT NOT NULL,
    token_used_at BIGINT,
    key_hash VARCHAR(64),
    serial VARCHAR(64),
    state VARCHAR(16) NOT NULL,
    address VARCHAR(64),
    version BIGINT NOT NULL,
    platform VARCHAR(64) NOT NULL,
    instance VARCHAR(128),
    session_boot VARCHAR(32),
    session_no BIGINT NOT NULL,
    enrolled_at BIGINT,
    expires_at BIGINT,
    last_contact BIGINT,
    made_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX agent_token ON agent (token_hash);
CREATE UNIQUE INDEX agent_job ON agent (job);
CREATE INDEX agent_server ON agent (server);
CREATE INDEX agent_customer ON agent (customer, id);

CREATE TABLE guest_command (
    id VARCHAR(96) NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    job VARCHAR(32) NOT NULL,
    attempt VARCHAR(32) NOT NULL,
    customer BIGINT NOT NULL,
    server BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    operation MEDIUMTEXT NOT NULL,
    user_name VARCHAR(128) NOT NULL,
    state VARCHAR(16) NOT NULL,
    made_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    sent_at BIGINT,
    done_at BIGINT,
    result TEXT,
    cancel_epoch BIGINT
);
CREATE INDEX guest_command_queue ON guest_command (server, state, seq);
CREATE INDEX guest_command_job ON guest_command (job);

CREATE TABLE output (
    command VARCHAR(96) NOT NULL,
    stream VARCHAR(8) NOT NULL,
    start BIGINT NOT NULL,
    data LONGBLOB NOT NULL,
    PRIMARY KEY (command, stream, start)
);

CREATE TABLE audit (
    id BIGINT NOT NULL PRIMARY KEY,
    customer BIGINT NOT NULL,
    actor VARCHAR(128) NOT NULL,
    action VARCHAR(64) NOT NULL,
    subject VARCHAR(128) NOT NULL,
    detail TEXT NOT NULL,
    made_at BIGINT NOT NULL
);
CREATE INDEX audit_customer ON audit (customer, id);
