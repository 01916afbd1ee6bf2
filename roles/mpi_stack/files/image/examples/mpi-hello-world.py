#!/usr/bin/env python3
"""Every rank says who it is and on which PC."""
from mpi4py import MPI

world = MPI.COMM_WORLD
lines = world.gather(f"hello from rank {world.rank} of {world.size} on {MPI.Get_processor_name().split('.')[0]}")
if world.rank == 0:
    print("\n".join(lines))
