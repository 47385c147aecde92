CREATE TABLE {schema}.processed_files (
  bucket text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  etag text NOT NULL,
  size bigint NOT NULL,
  modified timestamptz NOT NULL,
  log_time timestamptz NOT NULL,
  status text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED')),
  version integer NOT NULL DEFAULT 0,
  attempts integer NOT NULL DEFAULT 0,
  lease timestamptz,
  loaded_etag text,
  rows bigint NOT NULL DEFAULT 0,
  rejected bigint NOT NULL DEFAULT 0,
  error text,
  last_attempt timestamptz,
  announced_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket, key)
);
CREATE INDEX processed_files_waiting_idx ON {schema}.processed_files (bucket, log_time, modified, key)
  WHERE status <> 'COMPLETED'
