"""The process's own group without those above it; and the largest copy alone, with its start in it."""
# scores: {test_usable: 1, test_usable_hidden: 0, test_memory_bandwidth_hidden: 0}

# %% grade_id="usable"
def usable(files):
    processors = memory = 0
    for line in files["/proc/self/status"].splitlines():
        if line.startswith("Cpus_allowed_list:"):
            for part in line.split(":")[1].strip().split(","):
                first, _, last = part.partition("-")
                processors += int(last or first) - int(first) + 1
    for line in files["/proc/meminfo"].splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) * 1024
    folder = ("/sys/fs/cgroup" + files["/proc/self/cgroup"].strip().split("::")[1]).rstrip("/")
    quota, _, period = files.get(f"{folder}/cpu.max", "max 1").strip().partition(" ")
    if quota != "max":
        processors = min(processors, int(quota) / int(period))
    limit = files.get(f"{folder}/memory.max", "max").strip()
    if limit != "max":
        memory = min(memory, int(limit))
    return processors, memory


# %% grade_id="memory_bandwidth"
def memory_bandwidth(copies, cache_bytes):
    n, seconds = max(copies)
    return 2 * n / seconds
