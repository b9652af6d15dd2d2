"""Train a small GPT with data parallelism, on this machine or on many: nothing here knows which.

`python train.py --processes 2` starts two processes on this machine. `torchrun --nproc-per-node 8
--max-restarts 3 train.py` starts eight, and all again when one fails. slurm.sbatch and kubernetes.yaml run it
on many nodes.
"""

import argparse
import json
import os

import torch
import torch.distributed as dist
from torch import nn

from coursekit.models import GPT, GPTConfig
from coursekit.parallel import launch, replicate, shard_batch

CONFIG = GPTConfig(vocab_size=64, max_seq_len=32, d_model=32, n_layers=2, n_heads=2)
GLOBAL_BATCH_SIZE = 16  # sequences a step, over all ranks: the loss curve is the same on any number of them


def train(steps: int) -> list[float]:
    """Run on every rank; return the loss of each step, in nats per token of the whole batch."""
    on_gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    torch.manual_seed(0)
    model = replicate(GPT(CONFIG).to(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)  # the same on every rank, which takes its own part
    losses = []
    for _ in range(steps):
        tokens = torch.randint(8, (GLOBAL_BATCH_SIZE, CONFIG.max_seq_len), generator=generator)
        mine = shard_batch(tokens, dp_rank=dist.get_rank(), dp_size=dist.get_world_size()).to(device)
        logits = model(mine[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), mine[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach()
        dist.all_reduce(mean, dist.ReduceOp.SUM)  # equal counts on all ranks: a mean of means is right
        losses.append(mean.item() / dist.get_world_size())
    return losses


def main() -> None:
    """Train, and let rank 0 say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=1, help="to start here; torchrun's own number wins")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backend", default="nccl" if torch.cuda.is_available() else "gloo")
    parser.add_argument("--json", help="file for the losses")
    options = parser.parse_args()
    world_size = int(os.environ.get("WORLD_SIZE", options.processes))
    losses = launch(train, world_size, options.steps, backend=options.backend)[0]
    if os.environ.get("RANK", "0") == "0":
        print(f"{world_size} ranks: loss {losses[0]:.4f} to {losses[-1]:.4f} nats per token")
        if options.json:
            with open(options.json, "w") as file:
                json.dump(losses, file)


if __name__ == "__main__":
    main()
