"""Looks at every tracked file: at most 1 MiB, no trailing blanks, a newline at the end, no absolute path
of the machine it was written on, and no Markdown link to a file that is not there."""

import pathlib
import re
import subprocess
import sys

MAX_BYTES = 1 << 20
HOME = re.compile(r"(?<![\w.])/(home/\w+|root|work)/")  # check: allow
LINK = re.compile(r"\]\(([^)#\s:]+)(#[^)]*)?\)")


def main():
    problems = []
    listing = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True).stdout
    for name in filter(None, listing.decode().split("\0")):
        path = pathlib.Path(name)
        if not path.is_file():
            continue
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            problems.append(f"{name}: {len(data)} bytes, at most {MAX_BYTES}")
        if name.startswith(("tests/golden/", "tests/fuzz/seeds/")) or b"\0" in data:
            continue  # data, kept byte for byte
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            problems.append(f"{name}: not UTF-8")
            continue
        if text and not text.endswith("\n"):
            problems.append(f"{name}: no newline at the end")
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                problems.append(f"{name}:{number}: trailing blanks")
            if HOME.search(line) and "check: allow" not in line:
                problems.append(f"{name}:{number}: a path of somebody's machine")
            if path.suffix == ".md":
                for target, _ in LINK.findall(line):
                    if not (path.parent / target).exists():
                        problems.append(f"{name}:{number}: link to {target}, which is not there")
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
