"""Settings of codebooks."""

import pytest

from rescomp import Fitting
from vq.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "least"),
    [("iterations", 0), ("em", 0), ("restarts", 1), ("again", 0), ("sweeps", 0), ("candidates", 1)],
)
def test_numbers_have_a_least(field, least):
    Fitting(**{field: least})
    with pytest.raises(ConfigError, match=rf"^{field} must be at least {least}, not {least - 1}$"):
        Fitting(**{field: least - 1})
