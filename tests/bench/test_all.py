"""All benches in a row: what lacks its data is skipped, what fails is not."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAIN = '\n\nif __name__ == "__main__":\n    main()\n'
BENCHES = {
    "good": "def main():\n    import sys\n    print(sys.argv)\n",
    "lacks": "from vq.errors import ConfigError\ndef main():\n    raise ConfigError('no data')\n",
    "child": """import subprocess, sys
def main():
    program = "from vq.errors import ConfigError; raise ConfigError('no package')"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
""",
    "broken": """import subprocess, sys
def main():
    command = [sys.executable, "-c", "raise KeyError('deep')"]
    subprocess.run(command, check=True, capture_output=True, text=True)
""",
    "bad": "def main():\n    raise ValueError('wrong')\n",
}


def run_all(folder, *options):
    return subprocess.run(
        [sys.executable, "bench/all.py", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_benches_run_one_after_another(tmp_path):
    folder = tmp_path / "bench"
    folder.mkdir()
    shutil.copy(ROOT / "bench" / "all.py", folder)
    (folder / "library.py").write_text("raise ValueError\n")
    for name in ("good", "lacks", "child"):
        (folder / f"{name}.py").write_text(BENCHES[name] + MAIN)
    done = run_all(tmp_path, "--quick", "--seeds", "1")
    assert done.returncode == 0, done.stderr
    options = ["--json", "out/bench/good-quick.json", "--quick", "--seeds", "1"]
    (printed,) = [line for line in done.stdout.splitlines() if line.startswith("[")]
    script, *given = ast.literal_eval(printed)
    assert Path(script).name == "good.py" and given == options
    assert "lacks: skipped, because no data\n" in done.stdout
    assert "child: skipped, because no package\n" in done.stdout
    assert done.stdout.endswith("done: good\nskipped: child, lacks\nfailed: none\n")
    assert done.stderr == ""

    for name in ("bad", "broken"):
        (folder / f"{name}.py").write_text(BENCHES[name] + MAIN)
    done = run_all(tmp_path)
    assert done.returncode == 1
    assert "out/bench/good.json" in done.stdout
    assert "ValueError: wrong\n" in done.stderr and "KeyError: 'deep'\n" in done.stderr
    assert done.stdout.endswith("done: good\nskipped: child, lacks\nfailed: bad, broken\n")
