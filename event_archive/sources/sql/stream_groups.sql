CREATE TABLE {schema}.stream_groups (
  stream text COLLATE "C" NOT NULL,
  group_name text COLLATE "C" NOT NULL,
  first_pass_until text NOT NULL,
  first_pass_at timestamptz,
  PRIMARY KEY (stream, group_name)
)
