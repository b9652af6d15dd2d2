"""The trusted check: tests run in a process that no student's code has ever run in.

`run` starts two processes for a submission. The student's kernel runs locked and solution cells; the trusted
process (`cells`) runs locked and test cells. Where a test calls one of the student's names, a stand-in
(`proxies`) sends the arguments as plain data (`codec`) to the kernel, where `student_side` answers.
"""
