"""From a weight to sub-vectors, and from sub-vectors to a codebook."""
