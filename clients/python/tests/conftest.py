"""Fixtures for all tests: a fake sidecar and clients of it (support.py), mounts that hang on command (lab_fixtures.py), and
the vLLM connector's scheduler half over a sidecar in memory (vllm/engine_fixtures.py)."""

pytest_plugins = ["support", "lab_fixtures", "engine_fixtures"]
