DROP TABLE credential;

DROP TABLE tenant_key;
