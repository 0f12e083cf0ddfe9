"""Where finished builds and synthesis results are kept."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Folder of finished builds: ``$SIGNBOOK_CACHE``, else ``~/.cache/signbook``."""
    return Path(os.environ.get("SIGNBOOK_CACHE") or Path.home() / ".cache" / "signbook")
