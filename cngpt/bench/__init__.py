"""Ours and the peer's, side by side, with the conditions beside the numbers."""
