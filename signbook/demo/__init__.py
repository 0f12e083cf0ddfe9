"""The whole path on real data, in two acts: digits, and a language model.

============  ==================================================================
module        what it does
============  ==================================================================
acts          both acts, their files, tables and report
language      the second act: signs that learn, that stay, and none, at equal bits
============  ==================================================================
"""

from signbook.demo.acts import (
    ARMS,
    FILES,
    Demo,
    headline,
    language_rows,
    render_demo,
    run_demo,
    samples,
)

__all__ = [
    "ARMS",
    "FILES",
    "Demo",
    "headline",
    "language_rows",
    "render_demo",
    "run_demo",
    "samples",
]
