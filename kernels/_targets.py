"""What an entry of ``masked_bce`` is: flags that both implementations write."""

__all__ = ["POSITIVE", "SAMPLED_NEGATIVE"]

POSITIVE = 1
SAMPLED_NEGATIVE = 2
