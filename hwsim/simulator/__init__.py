"""Generated hardware under Verilator: builds, testbenches, one simulated run."""
