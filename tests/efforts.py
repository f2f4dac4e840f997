"""As little measuring as there can be: tests assert what is decided, never how fast it is."""

from onnxopt.pipeline.effort import Effort
from onnxopt.profile.latency import Plan

_PLAN = Plan(warmup_seconds=0.01, burst_seconds=0.001, min_rounds=3, max_rounds=3, max_seconds=0.1)

BRIEF = Effort(screening=_PLAN, confirming=_PLAN, launches=2, finalists=2, tuned=0)
