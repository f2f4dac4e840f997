"""What a machine can run, as data."""
