"""All that knows Dagster. Here: adapters. Not here: what is done to a day."""
