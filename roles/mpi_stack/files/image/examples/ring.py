#!/usr/bin/env python3
"""A token goes once around all ranks; each one adds itself to it."""
from mpi4py import MPI

world = MPI.COMM_WORLD
right = (world.rank + 1) % world.size
left = (world.rank - 1) % world.size
me = f"{world.rank}@{MPI.Get_processor_name().split('.')[0]}"

if world.rank == 0:
    start = MPI.Wtime()
    world.send([me], dest=right)
    token = world.recv(source=left)
    print(f"ring of {world.size}: {' -> '.join(token + [me])}  ({(MPI.Wtime() - start) * 1e3:.1f} ms)")
else:
    token = world.recv(source=left)
    world.send(token + [me], dest=right)
