"""The programs that are measured beside this project's commands. Nothing is imported here: it costs time."""
