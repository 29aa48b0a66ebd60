"""The commands of ``srds``, one module each."""
