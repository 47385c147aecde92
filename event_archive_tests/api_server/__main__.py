"""The API as a process. Here: its options and its life."""

import argparse
import datetime as dt
import sys
import time

from event_archive_tests.api_server.api import Api
from event_archive_tests.api_server.clock import scaled
from event_archive_tests.api_server.events import START, Events
from event_archive_tests.api_server.server import serving
from event_archive_tests.api_server.switches import Switches


def main() -> None:
    """Prints its two ports and serves until its standard input ends, which it does when the parent ends."""
    parser = argparse.ArgumentParser(prog="python -m event_archive_tests.api_server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the events; 0 for a free one")
    parser.add_argument("--events", type=int, default=10_000, help="how many are made up")
    parser.add_argument("--start", type=dt.datetime.fromisoformat, default=START, help="the time of the first event")
    parser.add_argument("--step-ms", type=int, default=1000, help="milliseconds from one event to the next")
    parser.add_argument("--time-scale", type=float, default=1, help="how many times as fast the API's clock runs")
    parser.add_argument("--rendered", action="store_true", help="write every page of 1000 down first")
    parser.add_argument("--key", default="key", help="the API key")
    parser.add_argument("--switches", default="{}", help="JSON, as in switches.py")
    options = parser.parse_args()
    events = Events(options.events, options.start, options.step_ms)
    if options.rendered:
        events.render()
    clock = time.time if options.time_scale == 1 else scaled(options.time_scale)
    with serving(
        Api(events, options.key, Switches.model_validate_json(options.switches), clock), options.port
    ) as server:
        print(server.port, server.admin_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
