"""Write the golden files of the public interfaces anew: ``python -m tests.golden.regenerate``.

A difference that this leaves in git is a change of a public interface.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.golden import interfaces as golden


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def main() -> None:
    torch.set_num_threads(1)  # as in the tests
    for folder in (golden.HELP, golden.DOCUMENTS):
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
    for command in (None, *golden.commands()):
        golden.help_file(command).write_text(golden.help_text(command))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        golden.prepare(folder)
        for each in golden.COMMANDS:
            write(golden.DOCUMENTS / f"{each}.json", golden.document(each, folder))
        digests = {each: golden.container_digests(each, folder) for each in golden.WRITERS}
    write(golden.CONTAINERS, digests)
    write(golden.VERILOG, {each: golden.verilog_digest(each) for each in golden.INSTANCES})


if __name__ == "__main__":
    main()
