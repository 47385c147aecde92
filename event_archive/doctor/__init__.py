"""What ``event-archive doctor`` looks at, in which order. Not here: the checks, how findings are shown.

The doctor changes nothing in the database. In the lake it leaves nothing, unless deletion is refused there; the
container or folder is made if it is missing, as the first run would make it. Every wait is bounded.
"""

from event_archive.doctor import clocks, environment, lakes, server, table
from event_archive.doctor.findings import Topic

TOPICS = (
    Topic(environment.SETTINGS, None, environment.settings),
    Topic(server.SERVER, "settings", server.server),
    Topic(table.TABLE, "postgres", table.table),
    Topic(table.ROWS, "table", table.rows),
    Topic(server.REPLICA, "table", server.replica),
    Topic(lakes.LAKE, "settings", lakes.lake),
    Topic(clocks.CLOCK, "settings", clocks.clock),
    Topic(environment.ALERTS, "settings", environment.alerts),
)
