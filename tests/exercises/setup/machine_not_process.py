"""What the machine has, as most libraries report it; no control group is asked."""
# scores: {test_usable: 0, test_usable_hidden: 0}

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
    return processors, memory
