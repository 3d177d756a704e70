"""Record and inspect: what a command of probe does, as one function call."""
