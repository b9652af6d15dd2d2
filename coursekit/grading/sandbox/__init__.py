"""The sandbox around a student's kernel: what its processes may see, reach and use up. Needs no root."""
