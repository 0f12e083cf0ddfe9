"""The front door: command line, demo, model zoo and report. No other package imports it."""
