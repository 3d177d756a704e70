"""Formulas over one plain, mergeable struct of sums; and what counts as good enough. No I/O."""
