"""check_isa.py OBJECT...: objects built for an instruction set that a CPU may lack define no function that the linker
could take for other code (src/ops/cpu/cpu.cmake)."""

import subprocess
import sys


def main():
    output = subprocess.run(["nm", "-C", "--defined-only", *sys.argv[1:]], check=True, capture_output=True, text=True).stdout
    # "0000000000000000 W std::max(int, int)": weak, or unique.
    shared = [line[17:] for line in output.splitlines() if line[17:19] in ("W ", "V ", "u ")]
    print("\n".join(f"shared with other code: {symbol}" for symbol in shared) or f"{len(sys.argv) - 1} objects")
    sys.exit(bool(shared))


main()
