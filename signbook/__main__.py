"""``python -m signbook``: the command line, where a launcher runs it or no script is on PATH."""

from signbook.cli import main

if __name__ == "__main__":
    main()
