"""The figures that this project states, each measured beside its peers in the same run."""
