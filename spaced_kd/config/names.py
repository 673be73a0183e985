"""Words that fields may hold and that others read: special values, methods, plans."""

AUTO = "auto"
"""As any field that has this choice: what `config.compat` says (compat.py)."""

DEFAULT_REFERENCE = "online"
"""As `config.reference`: the only name there that no student needs to have."""

NO_TEACHER = "none"
"""As `config.teacher.model`: a run of students that no other network teaches."""

WITH_BRANCHES = ("self_kd",)
"""Methods that train the branches of a network."""

SELF_TAUGHT = (*WITH_BRANCHES, "dlb", "ps_kd")
"""Methods by which a network is its own teacher."""

WITH_PEER = ("dml",)
"""Methods of two equal networks, which are their own teachers (models.pair)."""

WITH_TRAINED_TEACHER = ("shake",)
"""Methods whose teacher was trained before the run."""

TWO_WAY = (*WITH_PEER, *WITH_TRAINED_TEACHER)
"""Methods that train two networks, or parts, which learn from one another."""

LEADING = (*SELF_TAUGHT, *TWO_WAY)
"""Methods whose spaced student also learns the batches when they come: ahead of a
replay a network leads itself, or one of the two leads the other."""

WITH_TWO_HEADS = ("dho",)
"""Methods that need a network with a head of its own for soft targets."""

WITHOUT_TEACHER = ("hard", *SELF_TAUGHT, *WITH_PEER)
"""Methods that do not look at the run's teacher."""

PLANS = (
    "none",
    "online",
    "lagged",
    "interleaved",
    "spaced",
    "critical_period",
    "constant_ahead",
    "offline",
)
"""Keys of spaced_kd.schedule.SCHEDULES, in the order in which tables list students."""

OPEN_LOOP_INTERVALS = ("linear", "expanding", "random")
"""Keys of spaced_kd.intervals.OPEN_LOOP: intervals that change as planned."""

FEEDBACK_INTERVALS = ("gap", "plateau")
"""Intervals that a run decides on by what it measures."""

INTERVALS = ("constant", *OPEN_LOOP_INTERVALS, *FEEDBACK_INTERVALS)
"""What `interval_schedule` may say of a spaced student."""
