"""Audits: does a rule teach the hidden layers of a user's own model, or does the output layer do all the work?"""

from altprop.auditing.judge import Limits
from altprop.auditing.report import Audit, Finding, RegionRow
from altprop.auditing.run import audit

__all__ = ["Audit", "Finding", "Limits", "RegionRow", "audit"]
