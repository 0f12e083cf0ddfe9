"""One script per published number: ``python bench/NAME.py``, or ``python -m bench.NAME``.

Run by its path, a script finds beside it what several of them share. Run as a module of this
package it does so, too, because this folder then stands last on the search path: behind all
packages, none of which a script may share its name with (``tests/bench/test_scripts.py``).
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
