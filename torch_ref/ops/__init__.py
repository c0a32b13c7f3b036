"""Pure functions on tensors. Only this folder and layers/ know torch's `dim` from Paddle's `axis`."""
