"""Every variable that configures the program, validated, and the services that the variables name.

No other room reads the environment, but for the demo, which sets its own. Nothing here connects to anything.
"""
