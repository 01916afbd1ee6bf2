# The login message of a cluster: what it has, and three commands to try. Spanish or English by the visitor's LANG.
case $- in *i*) ;; *) return 0 ;; esac
[ "${MPI_ROLE:-}" = master ] || return 0

hpclab_language=${LANG:-}
# The image has no locale but this one; a visitor's own would only make programs complain.
export LANG=C.UTF-8

hpclab_count() { echo "$1 $2$([ "$1" = 1 ] || echo s)"; }
hpclab_workers=$(grep -c . /run/mpi/hostfile)
hpclab_slots=$(sed -E 's/.*(slots=|:)([0-9]+).*/\2/' /run/mpi/hostfile | awk '{ s += $1 } END { print s + 0 }')
hpclab_mpi=$(mpirun --version 2>/dev/null | head -n 1)
hpclab_home_kept=$(grep -c ' /home/mpiuser ' /proc/self/mounts)

case $hpclab_language in
  es*)
    echo "Clúster $MPI_CLUSTER: $(hpclab_count $hpclab_workers worker), $(hpclab_count $hpclab_slots slot), $hpclab_mpi."
    echo
    echo "  mpirun python3 /opt/mpi/examples/mpi-hello-world.py   todos saludan"
    echo "  mpirun python3 /opt/mpi/examples/ring.py              un mensaje recorre todos los ranks"
    echo "  cat /run/mpi/hostfile                                 quiénes son los workers"
    [ "$hpclab_home_kept" -gt 0 ] ||
      printf '\n%s\n' "Atención: este directorio solo existe en este contenedor y se pierde con él; los workers no lo ven."
    ;;
  *)
    echo "Cluster $MPI_CLUSTER: $(hpclab_count $hpclab_workers worker), $(hpclab_count $hpclab_slots slot), $hpclab_mpi."
    echo
    echo "  mpirun python3 /opt/mpi/examples/mpi-hello-world.py   everyone says hello"
    echo "  mpirun python3 /opt/mpi/examples/ring.py              a message goes around"
    echo "  cat /run/mpi/hostfile                                 who the workers are"
    [ "$hpclab_home_kept" -gt 0 ] ||
      printf '\n%s\n' "Careful: this home exists in this container alone and is lost with it; the workers do not see it."
    ;;
esac
echo
unset -f hpclab_count
unset hpclab_language hpclab_workers hpclab_slots hpclab_mpi hpclab_home_kept
