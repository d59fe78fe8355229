"""The tables, roles and rules of audit records in PostgreSQL, as a script for the owner's role.

`hpcc_audit_writer` can only insert; a trigger checks each insert against the chain.
`hpcc_audit_reader` sees the rows of the tenants that `hpcc_audit.reader` lists for the current
role, `hpcc_audit_auditor` sees all rows. None of the three can change a row.
"""

from __future__ import annotations

from typing import Final

# Columns that the writer fills, in the order of its INSERT. The database fills `received_at`.
COLUMNS: Final = (
    "worker", "sequence", "kind", "at", "tenant", "principal", "build_id", "row_id",
    "action_digest", "image_digest", "cache_status", "isolation", "guest_id", "exit_code", "name",
    "hash", "previous", "data",
)  # fmt: skip
# SQLSTATEs that the trigger raises.
DAMAGED: Final = "HA001"
GAP: Final = "HA002"

AUDIT_SQL: Final = f"""\
-- hpcc: audit records. Run as the role that shall own them; run again after an upgrade.
BEGIN;
DO $$
DECLARE r text;
BEGIN
  FOREACH r IN ARRAY ARRAY['hpcc_audit_writer', 'hpcc_audit_reader', 'hpcc_audit_auditor'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = r) THEN
      EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', r);
    END IF;
  END LOOP;
END $$;

CREATE SCHEMA IF NOT EXISTS hpcc_audit;
REVOKE ALL ON SCHEMA hpcc_audit FROM PUBLIC;
GRANT USAGE ON SCHEMA hpcc_audit TO hpcc_audit_writer, hpcc_audit_reader, hpcc_audit_auditor;

CREATE TABLE IF NOT EXISTS hpcc_audit.record (
  received_at timestamptz NOT NULL DEFAULT now(),
  worker text NOT NULL,
  sequence bigint NOT NULL CHECK (sequence >= 0),
  kind text NOT NULL CHECK (kind IN ('row', 'event')),
  at timestamptz NOT NULL,
  tenant text NOT NULL,
  principal text NOT NULL,
  build_id text NOT NULL,
  row_id text NOT NULL,
  action_digest text NOT NULL,
  image_digest text NOT NULL,
  cache_status text NOT NULL,
  isolation text NOT NULL,
  guest_id text NOT NULL,
  exit_code bigint,
  name text NOT NULL,
  hash text NOT NULL,
  previous text NOT NULL,
  data bytea NOT NULL
) PARTITION BY RANGE (received_at);
CREATE TABLE IF NOT EXISTS hpcc_audit.record_default PARTITION OF hpcc_audit.record DEFAULT;
CREATE INDEX IF NOT EXISTS record_chain ON hpcc_audit.record (worker, sequence);
CREATE INDEX IF NOT EXISTS record_tenant ON hpcc_audit.record (tenant, at);
CREATE INDEX IF NOT EXISTS record_action ON hpcc_audit.record (action_digest);

CREATE TABLE IF NOT EXISTS hpcc_audit.chain (
  worker text PRIMARY KEY,
  first bigint NOT NULL,
  next bigint NOT NULL,
  head text NOT NULL
);
CREATE TABLE IF NOT EXISTS hpcc_audit.reader (
  role name NOT NULL,
  tenant text NOT NULL CHECK (tenant <> ''),
  PRIMARY KEY (role, tenant)
);

-- Each insert must continue its worker's chain; what is there already is skipped.
CREATE OR REPLACE FUNCTION hpcc_audit.chained() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  place hpcc_audit.chain%ROWTYPE;
  known text;
BEGIN
  IF NEW.hash <> encode(sha256('hpcc-audit-1'::bytea || '\\x00'::bytea || NEW.data), 'hex') THEN
    RAISE EXCEPTION 'a record has another hash' USING ERRCODE = '{DAMAGED}';
  END IF;
  INSERT INTO hpcc_audit.chain VALUES (NEW.worker, NEW.sequence, NEW.sequence, NEW.previous)
    ON CONFLICT DO NOTHING;
  SELECT * INTO place FROM hpcc_audit.chain c WHERE c.worker = NEW.worker FOR UPDATE;
  IF NEW.sequence < place.next AND NEW.sequence >= place.first THEN
    SELECT r.hash INTO known FROM hpcc_audit.record r
      WHERE r.worker = NEW.worker AND r.sequence = NEW.sequence;
    -- A partition of old records may have been dropped.
    IF known IS NULL OR known = NEW.hash THEN
      RETURN NULL;
    END IF;
    RAISE EXCEPTION 'another record has this number' USING ERRCODE = '{DAMAGED}';
  END IF;
  IF NEW.sequence <> place.next THEN
    RAISE EXCEPTION 'records are missing before this one' USING ERRCODE = '{GAP}';
  END IF;
  IF NEW.previous <> place.head THEN
    RAISE EXCEPTION 'a record does not follow the one before' USING ERRCODE = '{DAMAGED}';
  END IF;
  UPDATE hpcc_audit.chain c SET next = NEW.sequence + 1, head = NEW.hash
    WHERE c.worker = NEW.worker;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER chained BEFORE INSERT ON hpcc_audit.record
  FOR EACH ROW EXECUTE FUNCTION hpcc_audit.chained();

-- What the writer may know: which record is next.
CREATE OR REPLACE FUNCTION hpcc_audit.next_of(worker_id text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT c.next FROM hpcc_audit.chain c WHERE c.worker = worker_id $$;

-- A partition for this month and the next; records go to the default one where that fails.
CREATE OR REPLACE FUNCTION hpcc_audit.make_partitions() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  start date;
BEGIN
  FOR i IN 0..1 LOOP
    start := (date_trunc('month', now()) + make_interval(months => i))::date;
    CONTINUE WHEN to_regclass('hpcc_audit.record_' || to_char(start, 'YYYY_MM')) IS NOT NULL;
    BEGIN
      EXECUTE format(
        'CREATE TABLE hpcc_audit.%I PARTITION OF hpcc_audit.record FOR VALUES FROM (%L) TO (%L)',
        'record_' || to_char(start, 'YYYY_MM'), start, (start + interval '1 month')::date);
    EXCEPTION WHEN check_violation OR duplicate_table THEN
      NULL;
    END;
  END LOOP;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA hpcc_audit FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA hpcc_audit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hpcc_audit.next_of(text), hpcc_audit.make_partitions()
  TO hpcc_audit_writer;
GRANT SELECT ON hpcc_audit.reader TO hpcc_audit_reader;
GRANT INSERT ({", ".join(COLUMNS)})
  ON hpcc_audit.record TO hpcc_audit_writer;
GRANT SELECT ON hpcc_audit.record TO hpcc_audit_reader, hpcc_audit_auditor;

-- A reader sees its own tenants, and not who reads which others.
ALTER TABLE hpcc_audit.reader ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS own ON hpcc_audit.reader;
CREATE POLICY own ON hpcc_audit.reader FOR SELECT TO hpcc_audit_reader USING (role = current_user);
ALTER TABLE hpcc_audit.record ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS writer ON hpcc_audit.record;
CREATE POLICY writer ON hpcc_audit.record FOR INSERT TO hpcc_audit_writer WITH CHECK (true);
DROP POLICY IF EXISTS reader ON hpcc_audit.record;
CREATE POLICY reader ON hpcc_audit.record FOR SELECT TO hpcc_audit_reader
  USING (tenant IN (SELECT r.tenant FROM hpcc_audit.reader r WHERE r.role = current_user));
DROP POLICY IF EXISTS auditor ON hpcc_audit.record;
CREATE POLICY auditor ON hpcc_audit.record FOR SELECT TO hpcc_audit_auditor USING (true);
SELECT hpcc_audit.make_partitions();
COMMIT;
"""  # noqa: S608 - our names and codes
INSERT: Final = (
    f"INSERT INTO hpcc_audit.record ({', '.join(COLUMNS)})"  # noqa: S608 - our names
    " VALUES ($1, $2, $3, to_timestamp($4), $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
    " $16, $17, $18)"
)
