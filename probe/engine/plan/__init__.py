"""Planning a run ahead of it: where in memory each tensor lies."""
