"""A cell that raises: its function is not there; the other tasks keep their marks."""
# scores: {test_what_fits: 0, test_what_fits_hidden: 0}

# %% grade_id="what_fits"
raise RuntimeError("left over from debugging")
