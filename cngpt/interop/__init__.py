"""Other people's formats <-> ours."""
