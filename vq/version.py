"""Name and version of this tool, as files record it."""

VERSION = "0.2.0"
TOOL = f"signbook {VERSION}"
