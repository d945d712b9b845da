"""The picture of the README, from the figures of bench/compare.py.

    python bench/compare.py --json comparison.json && python bench/draw.py comparison.json bench/comparison.png

Needs matplotlib.
"""

import json
import sys

from matplotlib.figure import Figure

COLORS = {"reference": "0.6", "PyTorch": "#D55E00", "ONNX Runtime": "#0072B2", "OpenVINO": "#009E73"}
TITLES = {"forward": "inference", "train": "forward and backward"}


def main(source, target):
    with open(source, encoding="utf-8") as file:
        run = json.load(file)
    records = [r for r in run["records"] if r["mode"] in TITLES and r["dtype"] == "float32"]
    records = [r for r in records if "PyTorch" in r["seconds"]]  # cells that the peers have
    cells = list(dict.fromkeys(r["cell"] for r in records))
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(len(TITLES), len(cells), squeeze=False, sharex="col", sharey="row")
    for row, mode in enumerate(TITLES):
        for ax, cell in zip(axes[row], cells, strict=True):
            chosen = [r for r in records if (r["mode"], r["cell"]) == (mode, cell)]
            names = [
                n
                for n in ("reference", "PyTorch", "ONNX Runtime", "OpenVINO")
                if any(n in r["seconds"] for r in chosen)
            ]
            width = 0.8 / len(names)
            for k, name in enumerate(names):
                places = [i + (k - (len(names) - 1) / 2) * width for i in range(len(chosen))]
                ratios = [r["seconds"].get(name, float("nan")) / r["seconds"]["engine"] for r in chosen]
                label = "NumPy reference" if name == "reference" else name
                ax.bar(places, ratios, width, label=label, color=COLORS[name])
            ax.axhline(1, color="black", linewidth=0.8)
            ax.set_yscale("log")
            ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
            ax.minorticks_off()
            ax.grid(axis="y", alpha=0.3)
            ax.set_xticks(range(len(chosen)), [r["workload"] for r in chosen], rotation=60, ha="right", fontsize=8)
            ax.set_title(f"{cell.upper()}, {TITLES[mode]}", fontsize=10)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    figure.supylabel("time of the other / time of rnncore (above 1: rnncore is faster)", fontsize=9)
    plural = "" if run["threads"] == 1 else "s"
    figure.suptitle(
        x=0.02,
        ha="left",
        t=f"float32, {run['threads']} thread{plural}, {run['processor']}, {run['instruction set']}, {run['date']}; "
        "shapes: time steps, batch, input size, hidden size",
        fontsize=10,
    )
    figure.savefig(target, dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
