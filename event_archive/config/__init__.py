"""Every variable that configures the program, validated, and the services that the variables name.

No other room reads the environment, and nothing here connects to anything.
"""
