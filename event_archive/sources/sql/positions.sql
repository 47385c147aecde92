CREATE TABLE {schema}.positions (
  device_id text COLLATE "C" NOT NULL,
  ts timestamptz NOT NULL,
  latitude double precision,
  longitude double precision,
  altitude double precision,
  angle double precision,
  satellites integer,
  speed double precision,
  priority integer,
  attributes jsonb NOT NULL,
  stream_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (device_id, ts)
){divided};
CREATE INDEX positions_ts_idx ON {schema}.positions (ts)
