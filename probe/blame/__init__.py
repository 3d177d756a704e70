"""Which tactic is to blame: choices recorded and replayed, compared, and bisected."""
