"""Where feeds and labels come from."""
