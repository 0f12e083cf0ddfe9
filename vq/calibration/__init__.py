"""What data tell about a model, and the walk through its blocks."""
