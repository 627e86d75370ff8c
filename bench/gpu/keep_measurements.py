#!/usr/bin/env python3
"""Keeps what `moge bench ops|decode|prefill --json` measured, short and with its origin, for `moge sim` to use.

  keep_measurements.py --commit 0337615 --date 2026-11-24 --name h200-sxm --ops ops.json --runs b1.json b300.json

writes configs/ops/NAME.json (measured operators, which moge sim takes by itself; several files become one table)
and bench/gpu/runs/NAME-*.json (whole runs, which moge sim compare puts beside their prediction).
"""

import argparse
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def short(value):
    """Numbers of five significant digits, everywhere."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [short(item) for item in value]
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    return value


def write(file, head, key, items):
    """One item a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n ".join(json.dumps(short(item)) for item in items)
    file.write_text(f"{json.dumps(head)[:-1]}, {json.dumps(key)}: [\n {lines}]}}\n", encoding="utf-8")
    print(f"{file.relative_to(ROOT)}: {len(items)} of {key}, {file.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="the machine's, as in configs/hardware")
    parser.add_argument("--commit", required=True, help="that was measured")
    parser.add_argument("--date", required=True)
    parser.add_argument("--ops", nargs="*", type=pathlib.Path, default=[])
    parser.add_argument("--runs", nargs="*", type=pathlib.Path, default=[])
    args = parser.parse_args()
    origin = {"commit": args.commit, "date": args.date}

    tables = [json.loads(file.read_text()) for file in args.ops]
    if len({table["device"] for table in tables}) > 1:
        parser.error("tables of different devices")
    if tables:
        ops = [{key: op[key] for key in ("op", "shape", "ms", "span_ms") if key in op} for t in tables for op in t["ops"]]
        command = f"moge bench ops {tables[0]['model']} --dtype ... --kv-dtype ... --json"
        head = {"device": tables[0]["device"], "model": tables[0]["model"], **origin, "command": command}
        write(ROOT / f"configs/ops/{args.name}.json", head, "ops", ops)

    for file in args.runs:
        run = json.loads(file.read_text())
        ops = [{"op": op["op"], "call_ms": op["call_ms"]} for op in run.pop("ops")]
        name = f"{args.name}-{run['weights']}-{run['benchmark']}-{run['batch']}.json"
        write(ROOT / "bench/gpu/runs" / name, {**origin, **short(run)}, "ops", ops)


if __name__ == "__main__":
    main()
