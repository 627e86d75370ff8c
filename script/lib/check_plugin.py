"""check_plugin.py PLUGIN PROGRAM: every symbol of ours that the GPU plugin lacks is one that the program exports."""

import subprocess
import sys


def symbols(*arguments):
    output = subprocess.run(["nm", "-D", "-C", *arguments], check=True, capture_output=True, text=True).stdout
    return {line.strip() for line in output.splitlines() if "moge::" in line}


def main():
    plugin, program = sys.argv[1:]
    missing = symbols("--undefined-only", "--format=just-symbols", plugin) - symbols(
        "--defined-only", "--format=just-symbols", program
    )
    for symbol in sorted(missing):
        print(f"{plugin} needs {symbol}, {program} does not export it")
    sys.exit(bool(missing))


main()
