"""GPTQ, GPTAQ, ResComp's variants, FOEM and QEP beside SSVQ and VQ: see ``comparison.py``.

The script bears the name of a package. Other scripts of this folder that import the package would
find the script in its place, so it hands them the package.
"""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    from comparison import main

    main()
else:
    here, found = Path(__file__).parent, sys.path[:]
    sys.path[:] = [folder for folder in found if Path(folder).resolve() != here.resolve()]
    del sys.modules[__name__]
    importlib.import_module(__name__)
    sys.path[:] = found
