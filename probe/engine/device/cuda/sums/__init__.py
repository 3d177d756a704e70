"""Tensors compared where they lie: the sums, histograms and extremes that metrics are made of."""
