"""The best card decides, whatever driver and code there are; a part of a processor is rounded up."""
# scores: {test_install: 1, test_install_hidden: 0}

# %% grade_id="install"
import math


def install(machine):
    linux, arm = machine["system"] == "Linux", machine["architecture"] == "arm64"
    if not linux:
        build = "mps" if machine["system"] == "macOS" and arm else None
        return {"build": build, "precision": "fp32", "threads": math.ceil(machine["processors"])} if build else {"build": None}
    best = max(map(tuple, machine["cards"]), default=(0, 0))
    build = "cpu" if best < (5, 0) else "cu126" if best < (7, 5) else "cu130"
    precision = "bf16" if best >= (8, 0) else "fp16" if best >= (7, 0) else "fp32"
    return {"build": build, "precision": precision, "threads": math.ceil(machine["processors"])}
