"""Makes what the page needs: a step file by `altprop export`, its wiring, and scikit-learn's digits.

    python examples/browser/make_step.py
    cd examples/browser && npm ci && npx vite build     # dist/ is the page: static files, any server

The network is 64 - 96 - 64 - 10, learns by rec-LRA, and has AdamW inside its step.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent / "public" / "model"
MODEL = ["mlp", "--data", "digits", "--hidden", "96,64", "--rule", "reclra"]
STEP = ["--optimizer", "adamw", "--lr", "0.003", "--errors", "--initial", ".safetensors"]


def altprop(*words: str) -> None:
    """Runs the command line."""
    subprocess.run([sys.executable, "-m", "altprop", *words], check=True)


def write_pathway(plan: Path, contract: Path, path: Path) -> None:
    """Writes the regions in the order of the forward pass, and the connections that carry errors."""
    wiring = json.loads(plan.read_text("utf-8"))
    outputs = json.loads(contract.read_text("utf-8"))["outputs"]
    regions = sorted(head["name"].removeprefix("error.") for head in outputs if head["part"] == "error")
    connections = [{"source": one["source"], "target": one["target"]} for one in wiring["connections"]]
    path.write_text(json.dumps({"regions": regions, "connections": connections}), "utf-8")


def write_digits(path: Path) -> None:
    """Writes images, then labels, a byte each, in a fixed random order."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.images[order].astype(np.uint8), digits.target[order].astype(np.uint8)
    path.write_bytes(images.tobytes() + labels.tobytes())


def main() -> None:
    """Writes all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    altprop("export", *MODEL, *STEP, "-o", str(FOLDER / "step.onnx"))
    altprop("plan", *MODEL, "-o", str(FOLDER / "plan.json"))
    write_pathway(FOLDER / "plan.json", FOLDER / "step.json", FOLDER / "pathway.json")
    write_digits(FOLDER / "digits.bin")


if __name__ == "__main__":
    main()
