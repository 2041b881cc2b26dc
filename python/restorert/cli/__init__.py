"""The command line: restorert COMMAND."""
