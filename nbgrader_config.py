"""nbgrader's configuration of the checkout: for trying an exercise, and for nbgrader's buttons in JupyterLab.

A class is graded in a folder of its own, which `coursekit course init` makes with its own configuration.
"""

from coursekit.grading.nbgrader_settings import show_safely

c = get_config()

show_safely(c)

c.CourseDirectory.course_id = "large_models"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", ".*"]

c.Execute.timeout = 60
c.Execute.shutdown_kernel = "immediate"
