"""Matrix products: which kernel takes one, on which tiles, what it ends with, and the names of all of them as tactics."""
