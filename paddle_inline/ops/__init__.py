"""Pure functions on tensors. Only this folder and layers/ know Paddle's `axis` from torch's `dim`."""
