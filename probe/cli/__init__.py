"""The command line: one file a command, each one library call, one renderer, one exit code."""
