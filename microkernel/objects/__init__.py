"""Objects in shared memory: made once, held by any process of the kernel, read without a copy."""

from microkernel.objects.arrays import empty
from microkernel.objects.statistics import ObjectStatistics
from microkernel.objects.store import Block, ObjectStore

__all__ = ["Block", "ObjectStatistics", "ObjectStore", "empty"]
