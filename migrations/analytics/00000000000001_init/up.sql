-- Measurements of guests. Not critical: nothing is decided from it.
CREATE TABLE guest_point (
    server BIGINT NOT NULL,
    at BIGINT NOT NULL,
    customer BIGINT NOT NULL,
    round_trip_micros BIGINT NOT NULL,
    cpu_load DOUBLE NOT NULL,
    ram_used_mb BIGINT NOT NULL,
    ram_total_mb BIGINT NOT NULL,
    processes BIGINT NOT NULL,
    PRIMARY KEY (server, at)
);
CREATE INDEX guest_point_at ON guest_point (at);
