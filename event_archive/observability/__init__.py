"""What people and machines get to see of the program: log lines, the console, alerts, metrics.

Nothing here decides what is done to a day.
"""
