"""Tables of docs/memory.md."""

from pathlib import Path

PAGE = (Path(__file__).parents[3] / "docs" / "memory.md").read_text()


def table(name: str) -> dict[str, list[str]]:
    """Cells of a table behind its mark, by the first of each row."""
    text = PAGE.partition(f"<!-- {name} -->\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}
