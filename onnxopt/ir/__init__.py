"""What a model is: reading, writing, checking, shapes, weights and digests."""
