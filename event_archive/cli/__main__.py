"""``python -m event_archive.cli``: the entry point, and an end that a lost interrupt cannot turn into another."""

import os
import sys

from event_archive.cli import main

try:
    main()
except SystemExit as end:
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ends a module that was interrupted while it imported something by SIGINT, whatever exit code it asks for.
    os._exit(end.code if isinstance(end.code, int) else 1)
