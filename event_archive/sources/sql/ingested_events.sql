CREATE TABLE {schema}.ingested_events (
  id text COLLATE "C" PRIMARY KEY,
  event_type text,
  "timestamp" timestamptz,
  data jsonb NOT NULL,
  ingested_at timestamptz DEFAULT now()
);
CREATE INDEX ingested_events_timestamp_idx ON {schema}.ingested_events ("timestamp")
