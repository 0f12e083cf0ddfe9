"""Parts of training that a run can have or lack."""
