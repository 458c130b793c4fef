"""What a run needs and costs, in plain numbers, without torch."""
