"""Databases as processes of their own, for the tests."""
