"""The forms of attention as functions of q, k and v, each linear one beside its definition in O(N^2)."""
