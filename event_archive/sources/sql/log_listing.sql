CREATE TABLE {schema}.log_listing (
  bucket text COLLATE "C" NOT NULL,
  prefix text COLLATE "C" NOT NULL,
  last_key text COLLATE "C",
  full_pass_at timestamptz,
  first_pass_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket, prefix)
)
