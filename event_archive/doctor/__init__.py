"""What ``event-archive doctor`` looks at, and in which order. Not here: Dagster's topics
(``defs.doctor``), how findings are shown.

The doctor changes nothing in the database. In the lake it leaves nothing, unless deleting is forbidden there; it makes
the container or folder where that is missing, as the first run would. Every wait is bounded.
"""

from event_archive.doctor import clocks, environment, lakes, rows, server, table
from event_archive.doctor.findings import Topic

TOPICS = (
    Topic(environment.SETTINGS, None, environment.settings),
    Topic(server.SERVER, "settings", server.server),
    Topic(table.TABLE, "postgres", table.table),
    Topic(rows.ROWS, "table", rows.rows),
    Topic(server.REPLICA, "table", server.replica),
    Topic(lakes.LAKE, "settings", lakes.lake),
    Topic(clocks.CLOCK, "settings", clocks.clock),
    Topic(environment.ALERTS, "settings", environment.alerts),
)
"""What is looked at of each dataset."""
OF_ALL = (Topic(environment.SOURCES, None, environment.sources),)
"""What all datasets have in common; after them, before Dagster."""
