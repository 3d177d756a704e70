"""Results made readable: terminal text now, pages later. Imports nothing of probe but results, precision and errors."""
