"""RunRecord → something to look at: one file a format."""
