"""Sets of ordinary runs, done by several workers and resumed job by job.

job: what is to be done; tasks: the same with the stages that come first; marks: what
the files say of each; run: checks, starts workers and watches; work: what a worker
does, in this process or (worker) in one of its own; engines: where workers run.

Workers pull. Each takes the first task that nobody has, which a lock says that dies
with its process: what a lost worker had, another one continues.
"""
