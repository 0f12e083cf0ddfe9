"""From points to codewords."""
