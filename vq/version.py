"""Name and version of this tool, as files record it."""

VERSION = "0.1.0"
TOOL = f"signbook {VERSION}"
