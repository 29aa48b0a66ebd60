"""The frameworks on the microkernel: each is a library over its public interface."""
