CREATE TABLE {schema}.rejected_records (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source text NOT NULL,
  locator text NOT NULL,
  reason text NOT NULL,
  raw bytea NOT NULL,
  rejected_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (source, locator)
)
