"""What a model is made of, and why it behaves as it does."""
