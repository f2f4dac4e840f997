"""Passes that remove what a model can do without: channels, heads, layers, weights."""
