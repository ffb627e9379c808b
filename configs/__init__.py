"""Runs: one file each, `get_config() -> ConfigDict`, numbers and names only."""
