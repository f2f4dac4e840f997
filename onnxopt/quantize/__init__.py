"""Changes to the numbers a model computes with."""
