"""Prints the last page of script/demo: the loss curves and the numbers of the model and its top-K twin.

    demo_page.py DEMO_DIR

Every number is read from what the runs wrote: DEMO_DIR/{moge,topk}/{train,eval,speed}.csv and seconds.txt.
"""

import csv
import pathlib
import statistics
import sys

WIDTH, HEIGHT = 72, 14


def read_csv(path):
    """The columns as lists of floats."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        sys.exit(f"{path}: no rows")
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


def read_run(directory):
    """All of a run's columns; those of eval.csv under eval_NAME."""
    run = read_csv(directory / "train.csv")
    run |= {f"eval_{key}": values for key, values in read_csv(directory / "eval.csv").items()}
    return run | {"tokens_per_second": read_csv(directory / "speed.csv")["tokens_per_second"]}


def mean(values):
    return sum(values) / len(values)


def plot(curves):
    """Loss against step as text. curves: list of (mark, steps, losses); a column shows the mean of its steps."""
    last = max(steps[-1] for _, steps, _ in curves)
    columns = []
    for mark, steps, losses in curves:
        cells = [[] for _ in range(WIDTH)]
        for step, loss in zip(steps, losses):
            cells[min(WIDTH - 1, int(WIDTH * step / (last + 1)))].append(loss)
        columns.append((mark, [mean(cell) if cell else None for cell in cells]))
    shown = [value for _, cells in columns for value in cells if value is not None]
    low, high = min(shown), max(shown)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for mark, cells in columns:
        for x, value in enumerate(cells):
            if value is not None:
                y = round((high - value) / ((high - low) or 1) * (HEIGHT - 1))
                grid[y][x] = "@" if grid[y][x] not in (" ", mark) else mark
    for y, row in enumerate(grid):
        print(f"{high - y * (high - low) / (HEIGHT - 1):6.2f} |{''.join(row).rstrip()}")
    print(" " * 7 + "+" + "-" * WIDTH)
    print(f"{'0':>8}{'step ' + str(int(last)):>{WIDTH}}")


def main():
    demo = pathlib.Path(sys.argv[1])
    runs = [("o", "MoGE", read_run(demo / "moge")), ("x", "top-K", read_run(demo / "topk"))]

    print("Training loss, nats per token: o MoGE, x top-K, @ both")
    plot([(mark, run["step"], run["loss"]) for mark, _, run in runs])

    # The routers are compared over the same steps: the second half of the shorter run.
    end = min(len(run["step"]) for _, _, run in runs)
    window = slice(end // 2, end)
    rows = [
        ("steps", lambda run: f"{len(run['step'])}"),
        ("tokens seen", lambda run: f"{sum(run['tokens']):,.0f}"),
        ("tokens per second (median)", lambda run: f"{statistics.median(run['tokens_per_second']):,.0f}"),
        ("held-out chapters, bits per byte", lambda run: f"{run['eval_bits_per_byte'][-1]:.3f}"),
        ("imbalance score over 4 devices", lambda run: f"{mean(run['imbalance_score'][window]):.3f}"),
        ("most used expert, x the mean", lambda run: f"{mean(run['expert_max_share'][window]):.2f}"),
        ("least used expert, x the mean", lambda run: f"{mean(run['expert_min_share'][window]):.2f}"),
    ]
    print(f"\n{'':36}{''.join(f'{name:>12}' for _, name, _ in runs)}")
    for label, value in rows:
        print(f"{label:36}{''.join(f'{value(run):>12}' for _, _, run in runs)}")
    print(f"The last three are means over the layers and steps {window.start} to {window.stop} of both. The imbalance score is")
    print("eq. 3 of arXiv 2505.21411: (rows of the busiest device - rows of the idlest) / tokens.")
    if len({len(run["step"]) for _, _, run in runs}) > 1:
        print("The twin has fewer steps, so the curves compare what the two have learnt, the held-out chapters do not.")

    print()
    total = 0
    for line in (demo / "seconds.txt").read_text(encoding="utf-8").splitlines():
        name, seconds = line.split("\t")
        if seconds == "made before":
            print(f"{'':9}{name} (made before)")
            continue
        total += int(seconds)
        print(f"{int(seconds):5d} s  {name}")
    print(f"{total:5d} s  in all")


if __name__ == "__main__":
    main()
