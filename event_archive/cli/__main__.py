"""``python -m event_archive.cli``."""

from event_archive.cli import main

main()
