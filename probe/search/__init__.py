"""Which units must stay in high precision, found by asking an oracle. Pure: no I/O, no engine, no clock of its own."""
