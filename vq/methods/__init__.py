"""Methods by the names of their papers, each a composition of what training has."""
