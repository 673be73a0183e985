"""Where a run's numbers are from, and whether its files still say what was written.

`of` gathers what a table has to tell of a run; `verify` checks every file that can be
checked without training or data. Neither writes anything. docs/provenance.md says what
a seal is, and what it is not.
"""

from spaced_kd.provenance.check import Problem, verify
from spaced_kd.provenance.origin import Provenance, environments, of, unsealed

__all__ = ["Problem", "Provenance", "environments", "of", "unsealed", "verify"]
