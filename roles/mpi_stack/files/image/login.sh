# The login message of a cluster: what it has, and three commands to try. Spanish or English by the visitor's LANG.
case $- in *i*) ;; *) return 0 ;; esac
[ "${MPI_ROLE:-}" = master ] || return 0

hpclab_language=${LANG:-}
# The image has no locale but this one; a visitor's own would only make programs complain.
export LANG=C.UTF-8

hpclab_count() { echo "$1 $2$([ "$1" = 1 ] || echo s)"; }
hpclab_workers=$(grep -c '^[^#]' /run/mpi/hostfile)
hpclab_slots=$(sed -nE 's/^[^#]*(slots=|:)([0-9]+).*/\2/p' /run/mpi/hostfile | awk '{ s += $1 } END { print s + 0 }')
# Open MPI looks into the home, which may not answer; MPICH's mpirun says who it is in many lines
hpclab_mpi=$(cd / && HOME=/ mpirun --version 2>/dev/null | sed -n '1{/HYDRA/!{p;q}}; s/^ *Version: */mpirun (MPICH) /p')
if [ "${MPI_SHARED_HOME:-}" = 1 ]; then
  /opt/mpi/mpi-home >/dev/null && hpclab_home=kept || hpclab_home=away
else
  grep -q ' /home/mpiuser ' /proc/self/mounts && hpclab_home=kept || hpclab_home=alone
fi

case $hpclab_language in
  es*)
    echo "Clúster $MPI_CLUSTER: $(hpclab_count $hpclab_workers worker), $(hpclab_count $hpclab_slots slot), $hpclab_mpi."
    echo
    echo "  mpirun python3 /opt/mpi/examples/mpi-hello-world.py   todos saludan"
    echo "  mpirun python3 /opt/mpi/examples/ring.py              un mensaje recorre todos los ranks"
    echo "  cat /run/mpi/hostfile                                 quiénes son los workers"
    hpclab_alone="Atención: este directorio solo existe en este contenedor y se pierde con él; los workers no lo ven."
    hpclab_away="Atención: la carpeta compartida no está: lo que se escribe aquí se pierde. Avisa al administrador; cuando vuelva, entra de nuevo."
    ;;
  *)
    echo "Cluster $MPI_CLUSTER: $(hpclab_count $hpclab_workers worker), $(hpclab_count $hpclab_slots slot), $hpclab_mpi."
    echo
    echo "  mpirun python3 /opt/mpi/examples/mpi-hello-world.py   everyone says hello"
    echo "  mpirun python3 /opt/mpi/examples/ring.py              a message goes around"
    echo "  cat /run/mpi/hostfile                                 who the workers are"
    hpclab_alone="Careful: this home exists in this container alone and is lost with it; the workers do not see it."
    hpclab_away="Careful: the shared folder is away: what is written here is lost. Tell the administrator; once it is back, log in again."
    ;;
esac
case $hpclab_home in
  alone) printf '\n%s\n' "$hpclab_alone" ;;
  away) printf '\n%s\n' "$hpclab_away" ;;
esac
echo
unset -f hpclab_count
unset hpclab_language hpclab_workers hpclab_slots hpclab_mpi hpclab_home hpclab_alone hpclab_away
