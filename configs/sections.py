"""Sections of `common.py`'s config that are long enough to stand apart."""
