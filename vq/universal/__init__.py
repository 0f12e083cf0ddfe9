"""One fixed codebook for many networks: what it is made of, its codewords, and what it costs."""
