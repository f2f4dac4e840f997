"""YAML → typed recipe, with errors that name file, line and path."""
