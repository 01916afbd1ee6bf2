/* Copyright (c) 2026, the hpclab.swarm authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Ping-pong between two processes, over MPI (mpicc) or, as the yardstick, over one TCP connection (cc -DTCP):
 *   mpirun -np 2 pingpong        pingpong-tcp server        pingpong-tcp ADDRESS
 * Prints a line per message size: bytes, microseconds one way, Gb/s; the best of five rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef TCP
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT 9099
static int peer;

static int start(int argc, char **argv)
{
    int one = 1, first = argc > 1 && strcmp(argv[1], "server");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    peer = socket(AF_INET, SOCK_STREAM, 0);
    if (first) {
        inet_pton(AF_INET, argv[1], &address.sin_addr);
        for (int tries = 0; connect(peer, (struct sockaddr *)&address, sizeof address); tries++) {
            if (tries == 100) { perror("connect"); exit(1); }
            close(peer);
            usleep(100000);
            peer = socket(AF_INET, SOCK_STREAM, 0);
        }
    } else {
        int listener = peer;
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1)) { perror("listen"); exit(1); }
        peer = accept(listener, NULL, NULL);
    }
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return first;
}

static void put(char *buffer, size_t size)
{
    for (ssize_t done; size; buffer += done, size -= done)
        if ((done = send(peer, buffer, size, 0)) <= 0) { perror("send"); exit(1); }
}

static void get(char *buffer, size_t size)
{
    for (ssize_t done; size; buffer += done, size -= done)
        if ((done = recv(peer, buffer, size, 0)) <= 0) { perror("recv"); exit(1); }
}

static void end(void) { close(peer); }
#else
#include <mpi.h>

static int rank;

static int start(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank == 0;
}

static void put(char *buffer, size_t size) { MPI_Send(buffer, size, MPI_CHAR, 1 - rank, 0, MPI_COMM_WORLD); }
static void get(char *buffer, size_t size) { MPI_Recv(buffer, size, MPI_CHAR, 1 - rank, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE); }
static void end(void) { MPI_Finalize(); }
#endif

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
    static const struct { size_t size; int times; } tests[] = {{1, 2000}, {65536, 500}, {1048576, 50}, {4194304, 20}};
    char *buffer = calloc(1, 4194304);
    int first = start(argc, argv);
    for (unsigned t = 0; t < sizeof tests / sizeof *tests; t++) {
        double best = 1e18;
        for (int round = 0; round < 5; round++) {
            double begin = now();
            for (int i = 0; i < tests[t].times; i++) {
                if (first) { put(buffer, tests[t].size); get(buffer, tests[t].size); }
                else { get(buffer, tests[t].size); put(buffer, tests[t].size); }
            }
            double one_way = (now() - begin) / tests[t].times / 2;
            if (one_way < best) best = one_way;
        }
        if (first) printf("%zu %.3f %.3f\n", tests[t].size, best, tests[t].size * 8 / best / 1e3);
    }
    end();
}
