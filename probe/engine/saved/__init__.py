"""Compiled networks in one file: written whole, read back with every byte checked, run without compiling again."""
