"""Files that people write as text: how they are decoded, and the one reading of YAML."""
