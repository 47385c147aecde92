"""``event_archive.ArchivedTable``: a dataset in somebody else's Dagster project, as a component.

Here: its attributes, which are the keys of the datasets file, and the definitions they make. Not here: what the keys
mean (``config.datasets``), sensors and upkeep, which serve a deployment of this project's own.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any

import dagster as dg
from pydantic import BaseModel, create_model, model_validator

from event_archive.config.datasets import check_together, earlier, settings_of, unknown_key
from event_archive.config.environment import PipelineSettings
from event_archive.defs.internals import TestComponentTree
from event_archive.defs.pipeline import build_pipeline
from event_archive.defs.resources import RESOURCES
from event_archive.errors import ConfigurationError


def _as_text(value: object) -> object:
    """What YAML reads as a number, a date or a truth value, as the text that stands there."""
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | date) else value


Text = Annotated[str, dg.Resolver.default(model_field_type=str | int | bool)]


class _OwnWords(BaseModel):
    """Tells mistakes in words that hold no value: Dagster would show what stands there, which may be a secret."""

    @model_validator(mode="before")
    @classmethod
    def _keys_and_kinds(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        known = list(ArchivedTable.model_fields)
        problems = [unknown_key("ArchivedTable", key, known) for key in given if key not in known]
        problems += [f"ArchivedTable.{key} is missing." for key in ("name", "table") if key not in given]
        for key, value in given.items():
            if key == "after":
                if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
                    problems.append("ArchivedTable.after must be a list of names of other components.")
            elif key in known and not isinstance(value, str | int | date):
                problems.append(f"ArchivedTable.{key} must hold one value.")
        if problems:
            raise _wrong(problems)
        return {key: _as_text(value) for key, value in given.items()}


class ArchivedTable(_OwnWords, dg.Component, dg.Model, dg.Resolvable):
    """One table that is archived, a CSV a UTC day, and purged of what was read back.

    The attributes are the keys of a dataset in DATASETS_FILE. What has no key, the lake among it, is read from the
    environment. Connections are names of variables, never secrets.

    Raises:
        ConfigurationError: with a line for each mistake.
    """

    name: Text
    table: Text
    time_column: Text | None = None
    retention: Text | None = None
    start: Text | None = None
    cron: Text | None = None
    folder: Text | None = None
    file_prefix: Text | None = None
    asset_keys: Text | None = None
    pg_connection_string_env: Text | None = None
    export_pg_connection_string_env: Text | None = None
    max_days_per_run: Text | None = None
    dry_run: Text | None = None
    backlog_alert_days: Text | None = None
    export_rate_limit: Text | None = None
    max_replica_lag: Text | None = None
    verify_nightly: Text | None = None
    logical_message_prefix: Text | None = None
    purge: Text | None = None
    drop_empty_partitions: Text | None = None
    vacuum: Text | None = None
    after: list[str] | None = None

    @model_validator(mode="after")
    def _parsed(self) -> "ArchivedTable":
        self.settings()
        return self

    @classmethod
    def model(cls) -> type[BaseModel]:
        """What Dagster reads YAML by."""
        return create_model("ArchivedTableModel", __base__=(_OwnWords, super().model()))

    def settings(self) -> PipelineSettings:
        """What shapes the pipeline, by the parsers of the datasets file.

        Raises:
            ConfigurationError: with a line for each mistake.
        """
        keys = self.model_dump(exclude_none=True, exclude={"name"})
        return settings_of(self.name, keys)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The dataset's assets, checks, jobs, schedule and resources; the executor of other runs is the project's.

        Raises:
            ConfigurationError: Dagster cannot read the cron expression, or the project's components contradict one
                another.
        """
        settings = self.settings()
        pipeline = build_pipeline(settings, earlier(self._all(context), settings), measured=False)
        return dg.Definitions(
            assets=pipeline.assets,
            asset_checks=pipeline.checks,
            jobs=[pipeline.job, pipeline.restore_job],
            schedules=[pipeline.schedule],
            resources=RESOURCES,
        )

    def _all(self, context: dg.ComponentLoadContext) -> list[PipelineSettings]:
        """The settings of all components of the project, this one among them."""
        tree = context.component_tree
        others = [] if isinstance(tree, TestComponentTree) else tree.get_all_components(ArchivedTable)
        components = {of.name: of for of in [self, *others]}
        found = [of.settings() for of in components.values()]
        times = Counter(of.name for of in others)
        problems = [f"{name} is the name of {number} components." for name, number in times.items() if number > 1]
        check_together([of.entry for of in found], found, problems.append)
        if problems:
            raise _wrong(problems)
        return found


def _wrong(problems: Any) -> ConfigurationError:
    lines = "\n".join(f"  {line}" for line in problems)
    return ConfigurationError(f"A component event_archive.ArchivedTable is not right:\n{lines}")
