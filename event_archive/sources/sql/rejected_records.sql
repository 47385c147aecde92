CREATE TABLE {schema}.rejected_records (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source text COLLATE "C" NOT NULL,
  locator text COLLATE "C" NOT NULL,
  reason text NOT NULL,
  raw bytea NOT NULL,
  rejected_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (source, locator)
)
