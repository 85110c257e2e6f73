"""What a data owner lets whom do: policies to state, and the labels that carry them (docs/policy.md)."""

from syftlite.policy.rules import Policy, aggregate_only, allow, approve, dp, from_table

__all__ = ["Policy", "aggregate_only", "allow", "approve", "dp", "from_table"]
