"""``kernel``: what a task costs, how soon it answers, what survives a crash.

Tasks in processes run on ``WORKERS`` workers, ours and the peers' alike. Peers that need an
environment of their own are scripts in ``benchmarks/peer_scripts``; each run of one starts the peer
and prints the median of several measurements in it.
"""

from benchmarks.kernel.suite import benches

__all__ = ["benches"]
