"""The commands: one file each, with its options, its work, its document and what it prints."""
