"""What of a network must stay FP32: the search's space, its oracle, and the proof of its answer."""
