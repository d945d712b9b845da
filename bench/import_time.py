"""How long `import rnncore` takes on top of `import numpy`: python bench/import_time.py [--samples 20]

Each sample is a fresh process that has imported NumPy and times `import rnncore`. With --what it prints the modules
that took most in one import.
"""

import argparse
import statistics
import subprocess
import sys

TIMED = """
import time, numpy
start = time.perf_counter()
import rnncore
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20, help="processes to start (default: %(default)s)")
    parser.add_argument("--what", action="store_true", help="print the modules that took most, in microseconds")
    args = parser.parse_args()

    if args.what:
        run = subprocess.run(
            [sys.executable, "-P", "-X", "importtime", "-c", "import numpy, rnncore"],
            check=True,
            capture_output=True,
            text=True,
        )
        lines = [line for line in run.stderr.splitlines() if "rnncore" in line]
        print("\n".join(sorted(lines, key=lambda line: -int(line.split("|")[1]))[:25]))
        return

    def sample() -> float:
        run = subprocess.run([sys.executable, "-P", "-c", TIMED], check=True, capture_output=True, text=True)
        return 1000 * float(run.stdout)

    sample()  # compiles and caches
    times = sorted(sample() for _ in range(args.samples))
    print(
        f"import rnncore, NumPy imported: median {statistics.median(times):.1f} ms, "
        f"{times[0]:.1f} to {times[-1]:.1f} ms in {len(times)} processes"
    )


if __name__ == "__main__":
    main()
