"""Fixtures for all tests: a fake sidecar and clients of it (support.py), mounts that hang on command (lab_fixtures.py)."""

pytest_plugins = ["support", "lab_fixtures"]
