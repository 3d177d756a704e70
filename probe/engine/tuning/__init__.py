"""Which tactic each layer runs: candidates, measured times, selectors, files of choices. A choice is an argument of a run, never of a build."""
