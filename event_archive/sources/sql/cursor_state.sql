CREATE TABLE {schema}.cursor_state (
  source text COLLATE "C" NOT NULL,
  shard text COLLATE "C" NOT NULL,
  cursor_value text,
  cursor_expires_at timestamptz,
  lower_bound timestamptz,
  upper_bound timestamptz,
  watermark timestamptz,
  ceiling timestamptz,
  pass_began timestamptz,
  passes integer NOT NULL DEFAULT 0,
  events_ingested bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (source, shard)
)
