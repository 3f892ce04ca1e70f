"""Writing data directories: one file per verb that prepares data."""
