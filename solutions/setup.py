# ---
# coursekit:
#   title: Setting up
#   forbidden: [coursekit.plan, coursekit.train, psutil, timeit, torch.utils.benchmark]
# ---

# %% [markdown]
# # Setting up
#
# Five functions to write and one question to answer, 18 points, about an hour and a quarter. The chapter
# *Setting up* has what you need; how to be right in spite of a coarse clock (task 2), for other people's
# machines (4) and under a budget (5) is yours to find.
#
# Each task has a cell for your code, with `raise NotImplementedError` in it, and a cell of tests below. The
# tests say what is wrong in a sentence. Some tests are hidden; they use other numbers. Nothing here depends
# on how fast your computer is: the machines are descriptions or simulations.

# %% nbgrader="locked" grade_id="setup"
import time

import numpy as np
from coursekit.notebooks import expect_close, expect_equal, points_for, probe

MiB, GiB = 2**20, 2**30

# %% [markdown]
# ## Task 1. What may this process use? (3 points)
#
# On Linux the answer stands in files. Here they are given as a dictionary from path to text, so that they can
# be those of any machine. Of interest are
#
# - `/proc/self/cgroup`: the process's control group, in a line `0::/path/of/the/group`;
# - `/sys/fs/cgroup/path/of/the/group/cpu.max`: a quota and a period in microseconds, `"200000 100000"`, or
#   `"max 100000"` if there is no quota;
# - `/sys/fs/cgroup/path/of/the/group/memory.max`: bytes, or `"max"`;
# - the same two files for every group above, up to `/sys/fs/cgroup` itself; each may be missing;
# - `/proc/self/status`: among others a line `Cpus_allowed_list:` with the processors that the process may run
#   on, as in `0-3,8`;
# - `/proc/meminfo`: among others a line `MemTotal:` with the machine's memory, as in `16384000 kB` (a kB is
#   1,024 bytes here).
#
# In a container the group's path is often `/`; then only the files in `/sys/fs/cgroup` count.

# %%
example = {
    "/proc/self/cgroup": "0::/jobs/17\n",
    "/proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3,8\nThreads:\t4\n",
    "/proc/meminfo": "MemTotal:       16384000 kB\nMemFree:         1024000 kB\n",
    "/sys/fs/cgroup/jobs/cpu.max": "max 100000\n",
    "/sys/fs/cgroup/jobs/memory.max": "8589934592\n",
    "/sys/fs/cgroup/jobs/17/cpu.max": "250000 100000\n",
    "/sys/fs/cgroup/jobs/17/memory.max": "max\n",
}


# %% nbgrader="solution" grade_id="usable"
def usable(files):
    """Return (processors, bytes of memory) that the process may use, whatever the machine has.

    Processors are processors' worth of time, such as 2.5; the tightest of all limits counts.

    Args:
        files: path to text, as above.

    For the example above: (2.5, 8589934592).
    """
    ### BEGIN SOLUTION
    processors, memory = 0, 0
    for line in files["/proc/self/status"].splitlines():
        if line.startswith("Cpus_allowed_list:"):
            for part in line.split(":")[1].strip().split(","):
                first, _, last = part.partition("-")
                processors += int(last or first) - int(first) + 1
    for line in files["/proc/meminfo"].splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) * 1024
    parts = files["/proc/self/cgroup"].strip().split("::")[1].strip("/").split("/")
    for length in range(len(parts) + 1):
        folder = "/".join(["/sys/fs/cgroup", *parts[:length]]).rstrip("/")
        quota, _, period = files.get(f"{folder}/cpu.max", "max 1").strip().partition(" ")
        if quota != "max":
            processors = min(processors, int(quota) / int(period))
        limit = files.get(f"{folder}/memory.max", "max").strip()
        if limit != "max":
            memory = min(memory, int(limit))
    return processors, memory
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_usable" points=2
server = {
    "/proc/self/status": "Cpus_allowed_list:\t0-63\n",
    "/proc/meminfo": "MemTotal:       263856272 kB\n",
}
container = {
    "/proc/self/cgroup": "0::/\n",
    "/sys/fs/cgroup/cpu.max": "200000 100000\n",
    "/sys/fs/cgroup/memory.max": f"{4 * GiB}\n",
}
jobs = {
    "/proc/self/cgroup": "0::/jobs/17\n",
    "/proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3,8\nThreads:\t4\n",
    "/proc/meminfo": "MemTotal:       16384000 kB\nMemFree:         1024000 kB\n",
    "/sys/fs/cgroup/jobs/cpu.max": "max 100000\n",
    "/sys/fs/cgroup/jobs/memory.max": "8589934592\n",
    "/sys/fs/cgroup/jobs/17/cpu.max": "250000 100000\n",
    "/sys/fs/cgroup/jobs/17/memory.max": "max\n",
}
points_for(
    [
        (
            1,
            lambda: expect_close(
                usable(server | container),
                (2.0, 4 * GiB),
                hint="a container with --cpus=2 and 4 GiB on a server with 64 processors",
            ),
        ),
        (
            1,
            lambda: expect_close(
                usable(jobs),
                (2.5, 8 * GiB),
                hint="the group /jobs/17 sits in /jobs: each limit of each of them counts; "
                "250000/100000 is 2.5",
            ),
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_usable_hidden" points=1
# Graded with tests that you do not see: no limits at all, files that are missing, the mask as the tightest.
### BEGIN HIDDEN TESTS
free = {
    "/proc/self/cgroup": "0::/user.slice/user-1000.slice\n",
    "/proc/self/status": "Cpus_allowed:\tff\nCpus_allowed_list:\t0-7\n",
    "/proc/meminfo": "MemFree:         1024000 kB\nMemTotal:       8000000 kB\n",
    "/sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
    "/sys/fs/cgroup/user.slice/user-1000.slice/memory.max": "max\n",
}
expect_close(usable(free), (8, 8_000_000 * 1024), hint="no group sets a limit: mask and machine are left")
bound = free | {
    "/proc/self/status": "Cpus_allowed_list:\t5\n",
    "/sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n",
    "/sys/fs/cgroup/user.slice/user-1000.slice/memory.max": str(10**15),
}
expect_close(
    usable(bound),
    (1, 8_000_000 * 1024),
    hint="the mask names processor 5 alone; a memory limit above the machine's memory allows no "
    "more than that",
)
deep = free | {
    "/proc/self/cgroup": "0::/a/b/c\n",
    "/proc/self/status": "Cpus_allowed_list:\t0,2-3,8-15\n",
    "/sys/fs/cgroup/a/cpu.max": "150000 100000\n",
    "/sys/fs/cgroup/a/b/c/cpu.max": "10000 5000\n",
    "/sys/fs/cgroup/memory.max": str(3 * GiB),
    "/sys/fs/cgroup/a/b/memory.max": str(5 * GiB),
}
expect_close(
    usable(deep),
    (1.5, 3 * GiB),
    hint="limits stand at the top and two levels above; periods differ between groups",
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 2. A clock that is not fooled (4 points)
#
# `SimulatedDevice` behaves as a GPU does, with a time of its own. `operation()` puts work into a queue and
# returns at once; `synchronize()` waits until the queue is empty; `clock()` gives the seconds. It has the
# vices of real ones: the first operation is slow, other programs take the device now and then, and some
# have a clock that moves in steps. The true seconds of one operation are what you are after. You have 60
# seconds of the device's time; after that it stops you.


# %% nbgrader="locked" grade_id="simulated_device"
class SimulatedDevice:
    """A device with a queue and a clock of its own; seconds are those of its clock."""

    def __init__(self, seconds, first=0.5, tick=0.0, pause=0.0):
        self.seconds, self.first, self.tick, self.pause = seconds, first, tick, pause
        self.now = self.done = 0.0
        self.next_pause = 0.9

    def operation(self):
        """Queue an operation; return at once."""
        self._spend(2e-6)
        begin = max(self.now, self.done)
        if begin >= self.next_pause:  # another program takes the device
            begin += self.pause
            self.next_pause = begin + 5.0
        self.done = begin + self.seconds + self.first
        self.first = 0.0

    def synchronize(self):
        """Wait until the queue is empty."""
        self._spend(max(0.0, self.done - self.now) + 2e-6)

    def clock(self):
        """Return the seconds since the device was started, in its clock's steps."""
        return self.now // self.tick * self.tick if self.tick else self.now

    def _spend(self, seconds):
        self.now += seconds
        if max(self.now, self.done) > 60:
            raise TimeoutError("the 60 seconds of this device are over: measure with fewer calls")


# %%
device = SimulatedDevice(0.01)
start = device.clock()
device.operation()
print(f"a careless clock says {device.clock() - start:.6f} s; the truth is {device.seconds} s")


# %% nbgrader="solution" grade_id="seconds_per_call"
def seconds_per_call(operation, synchronize, clock):
    """Return the seconds that one operation takes, within 2 %, when nothing disturbs it.

    Args:
        operation: queues one operation and returns at once.
        synchronize: waits until all that was queued is done.
        clock: returns seconds; may move in steps of up to 1/64 s.
    """

    ### BEGIN SOLUTION
    def seconds(num_calls):
        synchronize()
        start = clock()
        for _ in range(num_calls):
            operation()
        synchronize()
        return clock() - start

    operation()  # warm-up
    num_calls = 1
    while seconds(num_calls) < 1.2:  # 2 % of this is more than a step of the clock
        num_calls *= 2
    return min(seconds(num_calls) for _ in range(6)) / num_calls
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_seconds_per_call" points=3
def measured(seconds, first, tick, pause):
    device = SimulatedDevice(seconds, first, tick, pause)
    return seconds_per_call(device.operation, device.synchronize, device.clock)


points_for(
    [
        (
            1,
            lambda: expect_close(
                probe(measured, 0.01, 0.0, 0.0, 0.0),
                0.01,
                rtol=0.02,
                hint="a quiet device with an exact clock, 0.01 s an operation: operations return "
                "before they are "
                "done, so wait with synchronize() before you read the clock",
            ),
        ),
        (
            1,
            lambda: expect_close(
                probe(measured, 0.01, 2.0, 1 / 64, 0.0),
                0.01,
                rtol=0.02,
                hint="the first operation takes 2 s more, and the clock moves in steps of 1/64 s: a "
                "warm-up, and "
                "enough calls between two readings that a step is less than 2 % of the time",
            ),
        ),
        (
            1,
            lambda: expect_close(
                probe(measured, 0.01, 0.5, 0.0, 0.4),
                0.01,
                rtol=0.02,
                hint="every five seconds another program takes the device for 0.4 s: what does it "
                "do to a mean, "
                "and what to the least of several measurements?",
            ),
        ),
    ]
)


# %% nbgrader="tests" grade_id="test_seconds_per_call_hidden" points=1
# Graded with tests that you do not see: fast and slow operations, all vices at once.
### BEGIN HIDDEN TESTS
def measured_hidden(seconds, first, tick, pause):
    device = SimulatedDevice(seconds, first, tick, pause)
    # Not the device's own methods, through which an answer reads `seconds` off the device.
    return seconds_per_call(lambda: device.operation(), lambda: device.synchronize(), lambda: device.clock())


for seconds, first, tick, pause in ((50e-6, 1.0, 1 / 64, 0.3), (0.3, 1.5, 1 / 64, 0.5), (1.3, 0.0, 0.0, 1.0)):
    expect_close(
        probe(measured_hidden, seconds, first, tick, pause),
        seconds,
        rtol=0.02,
        hint=f"an operation of {seconds:g} s, a first one of {first:g} s more, clock steps of "
        f"{tick:g} s, pauses "
        f"of {pause:g} s: the number of calls must follow from the operation, and 60 s must do",
    )
### END HIDDEN TESTS

# %% [markdown]
# Try it on your own machine (no points): how many operations per second does a matrix product reach?

# %%
matrix = np.random.default_rng(0).random((512, 512), dtype=np.float32)
HURRY = 20  # a clock that runs 20 times as fast: half a second's work instead of ten
try:
    seconds = seconds_per_call(lambda: matrix @ matrix, lambda: None, lambda: HURRY * time.perf_counter())
    seconds /= HURRY
    print(f"{2 * 512**3 / seconds / 1e9:.0f} GFLOP/s")
except NotImplementedError:
    print("write seconds_per_call first")

# %% [markdown]
# ## Task 3. Past the caches (2 points)
#
# A copy of `n` bytes reads `n` and writes `n`. Measured over many sizes, its rate has plateaus: small
# copies live in the caches, and what large ones show is the memory. Each copy also takes a constant time to
# start, the same for all sizes. You get the measurements, in no particular order, and the size of the
# largest cache. A copy counts as past the cache if its two arrays together are at least four times as large
# as the cache.


# %% nbgrader="solution" grade_id="memory_bandwidth"
def memory_bandwidth(copies, cache_bytes):
    """Return the bytes per second that the memory carries, reading and writing together.

    The time of a copy past the cache is start + 2 n / bandwidth, with the same unknown start for all.

    Args:
        copies: (n, seconds) of each measurement; two or more of them are past the cache.
        cache_bytes: size of the largest cache.
    """
    ### BEGIN SOLUTION
    past = np.array([(2 * n, seconds) for n, seconds in copies if 2 * n >= 4 * cache_bytes], dtype=float)
    slope, _ = np.polyfit(past[:, 0], past[:, 1], 1)
    return float(1 / slope)
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_memory_bandwidth" points=1
copies = [(n * MiB, 3e-6 + 2 * n * MiB / (150e9 if n <= 8 else 12e9)) for n in (1, 64, 4, 128, 2, 256)]
expect_close(
    memory_bandwidth(copies, 16 * MiB),
    12e9,
    rtol=1e-4,
    hint="a cache of 16 MiB at 150 GB/s, a memory at 12 GB/s: copies of 32 MiB and more are past the cache; "
    "reading and writing both count",
)

# %% nbgrader="tests" grade_id="test_memory_bandwidth_hidden" points=1
# Graded with tests that you do not see: a long start, a large cache.
### BEGIN HIDDEN TESTS
for start, cache, bandwidth in ((0.004, 32, 25e9), (0.02, 260, 7e9), (1e-6, 1, 40e9)):
    copies = [
        (n * MiB, start + 2 * n * MiB / (200e9 if 2 * n < 4 * cache else bandwidth))
        for n in (2 * cache, cache / 4, 8 * cache, 3 * cache, cache)
    ]
    expect_close(
        memory_bandwidth(copies, cache * MiB),
        bandwidth,
        rtol=1e-3,
        hint=f"start {start:g} s, cache {cache} MiB: the start is no part of the bandwidth; a difference of "
        "two sizes is free of it",
    )
### END HIDDEN TESTS

# %% [markdown]
# ## Task 4. Other people's machines (4 points)
#
# Friends ask what to install. You know their machines as dictionaries, which `friend` below makes:
#
# - `system`: "Linux", "macOS" or "Windows" (inside WSL it is "Linux"); `architecture`: "x86_64" or "arm64";
# - `cards`: a list of (major, minor) compute capabilities of NVIDIA cards, and `driver`, the major version of
#   their driver, 0 without one;
# - `processors`: what the process may use, such as 1.5.
#
# What there is to install, of torch 2.13 (a simplification of the real matrix, on which your answer is
# judged):
#
# | build | system | cards it has code for | driver |
# |---|---|---|---|
# | "cu130" | Linux on x86_64 | from 7.5, newer ones too | 580 or newer |
# | "cu126" | Linux on x86_64 | from 5.0 to 9.0 | 525 or newer |
# | "cpu" | Linux | | |
# | "mps" | macOS on arm64 | | |
#
# Everything else is None: no build. Precision: "bf16" if the best card *that the build can use* has
# capability 8.0 or more, "fp16" from 7.0 on, else "fp32"; "fp32" without such a card. Of several builds
# that can use a card take the one that gives the better card (higher capability), and of equals "cu130". A
# build of torch that can use no card of the machine is the "cpu" build with a gigabyte of ballast:
# say "cpu" then.


# %% nbgrader="locked" grade_id="friend"
def friend(system="Linux", architecture="x86_64", cards=(), driver=0, processors=8):
    """Return the description of a friend's machine."""
    return {
        "system": system,
        "architecture": architecture,
        "cards": [list(card) for card in cards],
        "driver": driver,
        "processors": processors,
    }


# %% nbgrader="solution" grade_id="install"
def install(machine):
    """Return what to install and how to begin, as {"build": ..., "precision": ..., "threads": ...}.

    `threads` is a whole number, at least 1, and at most what the process may use, unless that is below 1.
    Without a build: {"build": None}.

    Args:
        machine: a dictionary as above.
    """
    ### BEGIN SOLUTION
    linux, arm = machine["system"] == "Linux", machine["architecture"] == "arm64"
    best, build = max(
        [
            (card, name)
            for name, low, high, driver in (("cu126", (5, 0), (9, 0), 525), ("cu130", (7, 5), (99, 0), 580))
            for card in map(tuple, machine["cards"])
            if linux and not arm and low <= card <= high and machine["driver"] >= driver
        ],
        default=((0, 0), "cpu" if linux else "mps" if machine["system"] == "macOS" and arm else None),
    )
    if build is None:
        return {"build": None}
    precision = "bf16" if best >= (8, 0) else "fp16" if best >= (7, 0) else "fp32"
    return {"build": build, "precision": precision, "threads": max(1, int(machine["processors"]))}
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_install" points=2
points_for(
    [
        (
            1,
            lambda: [
                expect_equal(
                    install(friend(cards=[(8, 9)], driver=580)),
                    {"build": "cu130", "precision": "bf16", "threads": 8},
                    hint="an RTX 4070 with a new driver",
                ),
                expect_equal(
                    install(friend(cards=[(6, 1)], driver=580, processors=4)),
                    {"build": "cu126", "precision": "fp32", "threads": 4},
                    hint="the GTX 1050 Ti: only cu126 has code for capability 6.1, and 16 bits do "
                    "not pay there",
                ),
            ],
        ),
        (
            1,
            lambda: [
                expect_equal(
                    install(friend(processors=2.5)),
                    {"build": "cpu", "precision": "fp32", "threads": 2},
                    hint="a container without a card and with 2.5 processors' worth of time: a "
                    "third thread would "
                    "stand still now and then",
                ),
                expect_equal(
                    install(friend("macOS", "arm64")),
                    {"build": "mps", "precision": "fp32", "threads": 8},
                    hint="a MacBook with Apple's processor",
                ),
                expect_equal(
                    install(friend("Windows", cards=[(8, 9)], driver=580)),
                    {"build": None},
                    hint="Windows without WSL: the table has no row for it",
                ),
            ],
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_install_hidden" points=2
# Graded with tests that you do not see: old drivers, two cards, half a processor.
### BEGIN HIDDEN TESTS
cu126_fp16 = {"build": "cu126", "precision": "fp16", "threads": 8}
points_for(
    [
        (
            1,
            lambda: [
                expect_equal(
                    install(friend(cards=[(9, 0)], driver=550)),
                    {"build": "cu126", "precision": "bf16", "threads": 8},
                    hint="capability 9.0, driver 550: cu130 has the code and not the driver",
                ),
                expect_equal(
                    install(friend(cards=[(12, 0)], driver=570)),
                    {"build": "cpu", "precision": "fp32", "threads": 8},
                    hint="capability 12.0, driver 570: one build lacks the driver, the other the code",
                ),
                expect_equal(
                    install(friend(cards=[(7, 0)], driver=580)), cu126_fp16, hint="capability 7.0, driver 580"
                ),
                expect_equal(
                    install(friend(cards=[(3, 5)], driver=580))["build"],
                    "cpu",
                    hint="no build has code for 3.5",
                ),
            ],
        ),
        (
            1,
            lambda: [
                expect_equal(
                    install(friend(cards=[(6, 1), (12, 0)], driver=580)),
                    {"build": "cu130", "precision": "bf16", "threads": 8},
                    hint="two cards, 6.1 and 12.0: the better one decides",
                ),
                expect_equal(
                    install(friend(cards=[(7, 0), (12, 0)], driver=570)),
                    cu126_fp16,
                    hint="two cards, 7.0 and 12.0, driver 570: only the older can be used, and "
                    "precision follows it",
                ),
                expect_equal(
                    install(friend(processors=0.5))["threads"],
                    1,
                    hint="half a processor still needs a thread",
                ),
                expect_equal(
                    install(friend("macOS", "x86_64")), {"build": None}, hint="a Mac with Intel's processor"
                ),
                expect_equal(
                    install(friend(architecture="arm64", cards=[(9, 0)], driver=580))["build"],
                    "cpu",
                    hint="Linux on arm64 with a card: the table has CUDA for x86_64 only",
                ),
            ],
        ),
    ]
)
### END HIDDEN TESTS

# %% [markdown]
# ## Task 5. Which part to buy (3 points)
#
# A training step is a list of phases, each (operations, bytes to and from memory); a phase takes the longer
# of operations / `flops_per_second` and bytes / `bytes_per_second`, and phases follow each other. The run
# also needs `resident_bytes` of memory at all times; a machine with less cannot run it at all. An offer
# replaces some of the machine's numbers by better ones, at a price. Which is the cheapest that makes a step
# take at most `target_seconds`? Offers cannot be combined.

# %% nbgrader="locked" grade_id="example_of_offers"
pc = {"flops_per_second": 1e12, "bytes_per_second": 50e9, "memory_bytes": 16e9}
step = {"phases": [(4e12, 20e9), (2e9, 30e9)], "resident_bytes": 12e9}
parts = {
    "processor": {"price": 300, "flops_per_second": 2e12},
    "memory modules": {"price": 150, "memory_bytes": 32e9},
    "graphics card": {
        "price": 900,
        "flops_per_second": 20e12,
        "bytes_per_second": 500e9,
        "memory_bytes": 12e9,
    },
}


# %% nbgrader="solution" grade_id="cheapest_offer"
def cheapest_offer(machine, workload, offers, target_seconds):
    """Return the name of the cheapest offer that meets the target, "nothing" if none is needed, else None.

    Exactly on target, and memory exactly filled, are good enough. Of equal prices the faster counts.

    Args:
        machine: flops_per_second, bytes_per_second, memory_bytes.
        workload: phases, a list of (operations, bytes); resident_bytes.
        offers: name to {"price": ..., and the numbers that it replaces}.
        target_seconds: of a step.
    """

    ### BEGIN SOLUTION
    def seconds(changes):
        new = machine | changes
        if new["memory_bytes"] < workload["resident_bytes"]:
            return float("inf")
        return sum(
            max(f / new["flops_per_second"], b / new["bytes_per_second"]) for f, b in workload["phases"]
        )

    if seconds({}) <= target_seconds:
        return "nothing"
    good = [
        (offer["price"], seconds(offer), name)
        for name, offer in offers.items()
        if seconds(offer) <= target_seconds
    ]
    return min(good)[2] if good else None
    ### END SOLUTION


# %% nbgrader="tests" grade_id="test_cheapest_offer" points=2
points_for(
    [
        (
            1,
            lambda: [
                expect_equal(
                    cheapest_offer(pc, step, parts, 5.0),
                    "nothing",
                    hint="the step takes max(4, 0.4) + max(0.002, 0.6) = 4.6 s as it is",
                ),
                expect_equal(
                    cheapest_offer(pc, step, parts, 2.6),
                    "processor",
                    hint="4 s of the step are arithmetic: with twice the rate it takes 2 + 0.6 s, "
                    "exactly on target",
                ),
            ],
        ),
        (
            1,
            lambda: [
                expect_equal(
                    cheapest_offer(pc, step, parts, 1.0),
                    "graphics card",
                    hint="12 GB of memory for 12 GB of state are enough",
                ),
                expect_equal(
                    cheapest_offer(pc, step | {"resident_bytes": 14e9}, parts, 1.0),
                    None,
                    hint="14 GB do not fit on the card of 12 GB, and nothing else is fast enough",
                ),
            ],
        ),
    ]
)

# %% nbgrader="tests" grade_id="test_cheapest_offer_hidden" points=1
# Graded with tests that you do not see: no room for the run, a bottleneck that moves, equal prices.
### BEGIN HIDDEN TESTS
big = {"phases": [(1e12, 10e9)], "resident_bytes": 20e9}
expect_equal(
    cheapest_offer(pc, big, parts, 100.0),
    "memory modules",
    hint="20 GB do not fit into 16: the step does not run",
)
many = {"phases": [(5e11, 10e9)] * 4, "resident_bytes": 1e9}
more = {
    "bandwidth": {"price": 100, "bytes_per_second": 500e9},
    "arithmetic": {"price": 100, "flops_per_second": 4e12},
    "both": {"price": 400, "flops_per_second": 4e12, "bytes_per_second": 500e9},
}
expect_equal(
    cheapest_offer(pc, many, more, 1.0),
    "arithmetic",
    hint="four phases of max(0.5, 0.2) s; with four times the arithmetic each takes 0.2 s, since the memory "
    "becomes the bottleneck: 0.8 s",
)
expect_equal(
    cheapest_offer(pc, many, more, 0.5), "both", hint="four phases of max(0.125, 0.02) s, only with both"
)
same = {"slow": {"price": 5, "flops_per_second": 2e12}, "fast": {"price": 5, "flops_per_second": 2.4e12}}
for offers_ in (same, dict(reversed(same.items()))):
    expect_equal(
        cheapest_offer(pc, many, offers_, 1.5), "fast", hint="of equal prices the faster, in any order"
    )
one_memory_bound = {"phases": [(1e9, 100e9)], "resident_bytes": 1e9}
expect_equal(
    cheapest_offer(pc, one_memory_bound, more, 0.5), "bandwidth", hint="2 s, all of them waiting for memory"
)
### END HIDDEN TESTS

# %% [markdown] nbgrader="answer" grade_id="explain" points=2
# ## A question (2 points, read by a person)
# A colleague moves a training script from a desktop with 8 processors into a container (`docker run
# --cpus=4`) on a server with 96. He expects half the desktop's speed. It runs at a twentieth. `top` shows
# 400 % for the process, and the time stamps in the log come in bursts, about a tenth of a second apart.
#
# Say what probably happens, which single number you would look at to be sure, and what you would change.
# About six sentences.
#
# ### BEGIN SOLUTION
# **Model answer.** The quota of four processors' worth of time is a limit of a control group, which torch
# does not see: it counts the 96 bits of the affinity mask and starts as many threads (or 48, where two
# share a core). All of them together may run 400 ms in each period of 100 ms; with 96 busy threads that is
# used up after about 4 ms, and then all stand still until the next period: that is the tenth of a second
# between the bursts. The 400 % in `top` show that the quota is used up, much of it by threads that spin
# while they wait for each other. To be sure I read `nr_throttled` in the group's `cpu.stat`, before and
# after ten steps: it should rise with nearly every period. I would call `torch.set_num_threads(4)` (and set
# OMP_NUM_THREADS=4 for what is started from there, divided by the number of DataLoader workers or ranks);
# then a step should be near half the desktop's speed.
#
# **Rubric.** 1 point: threads are chosen from the machine or mask while the quota allows four, with the
# consequence that all stand still for the rest of each period (the bursts explained). 1 point: `cpu.stat`
# (nr_throttled or throttled_usec) or the thread count as the number to look at, and the number of threads
# set to four as the remedy. Half points are fine.
# ### END SOLUTION
