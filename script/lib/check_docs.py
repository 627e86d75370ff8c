"""Runs the shell blocks of the documents, so that what they say stays true.

A block that opens with ```sh runnable is run from the repository root by bash -euo pipefail, without
input, and has two minutes. A block that opens with ```sh ci is too long for that: .ci/run runs it, and
here each of its lines must begin a command of .ci/run.
"""

import pathlib
import re
import subprocess
import sys
import time

LIMIT_S = 120
BLOCK = re.compile(r"^```sh (runnable|ci)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(where, script):
    """None when the block ends with 0 in time, else what went wrong."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"{where}: still running after {LIMIT_S} s"
    print(f"  {where}: {time.monotonic() - start:.1f} s")
    if done.returncode == 0:
        return None
    return f"{where}: exit code {done.returncode}\n{script}{done.stdout.decode(errors='replace')[-4000:]}"


def main():
    ci = pathlib.Path(".ci/run").read_text(encoding="utf-8").splitlines()
    problems = []
    for path in [*sorted(pathlib.Path(".").glob("*.md")), *sorted(pathlib.Path("docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            where = f"{path}:{text[: block.start()].count(chr(10)) + 1}"
            if block[1] == "runnable":
                problem = run(where, block[2])
                if problem:
                    problems.append(problem)
                continue
            for line in filter(None, (line.split("#")[0].strip() for line in block[2].splitlines())):
                if not any(command == line or command.startswith(line + " ") for command in ci):
                    problems.append(f"{where}: '{line}' is marked ci, but .ci/run does not run it")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
