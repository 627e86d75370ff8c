"""Holds src/ to the includes table of docs/design.md, which is read here: the document is the rule.

Two tables count. "room | may include" lists, for each folder of src/, the rooms whose headers it may
include beside its own. "vendor header | only in" lists, for headers of other people's libraries, the
folders where they may appear. Every #include is also written from src/ on ("ops/rmsnorm.h", never
"../"), every header begins with #pragma once, and the DEPS of src/CMakeLists.txt stay within the table.
"""

import fnmatch
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}


def table(text, first_column):
    """The rows, as lists of cells, of the Markdown table whose first heading is first_column."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("|") and line.strip("| ").split("|")[0].strip() == first_column:
            next(lines)
            break
    else:
        sys.exit(f"docs/design.md has no table with the heading '{first_column}'")
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def words(cell):
    return re.findall(r"[\w./*+-]+", cell.replace("`", " "))


def main():
    root = pathlib.Path(".")
    design = (root / "docs/design.md").read_text(encoding="utf-8")
    allowed, vendor, problems = {}, {}, []
    for rooms, may, *_ in table(design, "room"):
        for room in words(rooms):
            allowed[room] = set(words(may)) | {room}
    for headers, places, *_ in table(design, "vendor header"):
        for header in words(headers):
            vendor[header] = words(places)
    for room, may in allowed.items():
        if "everything" in may:
            allowed[room] = set(allowed)
        allowed[room] &= set(allowed)  # drops words such as "nothing of ours"

    for path in sorted((root / "src").rglob("*")):
        if path.suffix not in SUFFIXES:
            continue
        room = path.parts[1]
        lines = path.read_text(encoding="utf-8").splitlines()
        if room not in allowed:
            problems.append(f"{path}: room '{room}' is not in the table of docs/design.md")
            continue
        if path.suffix in (".h", ".cuh") and "#pragma once" not in lines:
            problems.append(f"{path}: no #pragma once")
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match[2]
            where = f"{path}:{number}: #include {target}"
            if ".." in target.split("/"):
                problems.append(f"{where}: write it from src/ on")
            elif match[1] == '"':
                other = target.split("/")[0]
                if "/" not in target or not (root / "src" / target).exists():
                    problems.append(f"{where}: no such file in src/ (other libraries' headers take <>)")
                elif other not in allowed[room]:
                    problems.append(f"{where}: {room} may include only {' '.join(sorted(allowed[room]))}")
            else:
                for pattern, places in vendor.items():
                    if fnmatch.fnmatch(target, pattern):
                        here = path.relative_to("src").as_posix()
                        if not any(fnmatch.fnmatch(here, place + "/*") for place in places):
                            problems.append(f"{where}: only in {' '.join(places)}")

    cmake = (root / "src/CMakeLists.txt").read_text(encoding="utf-8")
    for room, deps in re.findall(r"moge_room\((\w+)\s+DEPS\s+([\w\s]+?)(?:\s+LIBS[^)]*)?\)", cmake):
        extra = set(deps.split()) - allowed.get(room, set())
        if extra:
            problems.append(f"src/CMakeLists.txt: room {room} links {' '.join(sorted(extra))}, which the table forbids")

    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
