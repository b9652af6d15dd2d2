"""What the grading benchmark grades, and with what."""
