"""Where layers run."""
