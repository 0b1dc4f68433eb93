"""Audits: does a rule teach the hidden layers of a user's own model, or does the output layer do all the work?"""

from altprop.auditing.audit_report import Audit, Finding, RegionRow
from altprop.auditing.audit_run import audit
from altprop.auditing.judge import Limits

__all__ = ["Audit", "Finding", "Limits", "RegionRow", "audit"]
