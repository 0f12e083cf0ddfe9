"""Codebooks by the compensating methods: groups of columns choose codewords, and signs, in turn."""
