# `make` alone says what there is
PLAY := .venv/bin/ansible-playbook
SUDO := $(shell [ $$(id -u) = 0 ] || echo sudo)
LAB := inventories/virtual_lab.ini
INVENTORY := inventories/lab.ini
SUITE := bookworm
KEYS := $(HOME)/.local/share/hpclab.swarm/lab
LOGIN = ssh -p 2222 -i $(KEYS)/id_ed25519 -o UserKnownHostsFile=$(KEYS)/known_hosts_mpi -o StrictHostKeyChecking=yes \
	mpiuser@$$(sed -n 's/^bob ansible_host=//p' $(LAB))

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

venv: .venv/ready
.venv/ready: requirements.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is " + sys.version.split()[0])'
	@python3 -c 'import ensurepip' 2>/dev/null && command -v ssh >/dev/null || { echo "Installing python3-venv and openssh-client"; \
	  $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends python3-venv openssh-client; }
	python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	mkdir -p .venv/collections/ansible_collections/hpclab
	ln -sfn ../../../.. .venv/collections/ansible_collections/hpclab/swarm
	touch $@

engine:
	scripts/engine start

lab: venv engine ## a virtual classroom on this machine: bob, alice, falco; with SUITE=trixie of Debian 13
	$(PLAY) playbooks/virtual_lab.yml -e '{"virtual_lab_suite": "$(SUITE)", "virtual_lab_vars": {"mpi_stack_members": ["$(KEYS)"]}}'

demo: lab ## the classroom, with a cluster over all its PCs
	$(PLAY) site.yml -i $(LAB)
	@docker exec lab-bob cat /etc/hpclab/clusters/mpi/known_hosts >$(KEYS)/known_hosts_mpi
	@echo; echo "Two jobs over all PCs, as a student starts them:"
	@$(LOGIN) 'set -ex; mpirun python3 /opt/mpi/examples/mpi-hello-world.py; mpirun python3 /opt/mpi/examples/ring.py'
	@echo; echo "Log in to the cluster: make login   (which is: $(LOGIN))"
	@echo "Change it, for example: docker stop lab-falco, or -e '{\"mpi_stack_clusters\": [{\"name\": \"mpi\", \"slots\": 1}]}' behind"
	@echo "  $(PLAY) site.yml -i $(LAB)"
	@echo "Your own PCs: README.md. When you have seen enough: make demo-down (the classroom) or make demo-purge (all that it brought)"

login: ## to the demo's cluster
	@$(LOGIN)

demo-down: venv ## removes the classroom
	rm -f $(KEYS)/known_hosts_mpi
	$(PLAY) playbooks/virtual_lab.yml -e virtual_lab_state=absent

demo-purge: demo-down ## also the images, and what was cached or installed for it
	scripts/engine purge
	rm -rf ~/.cache/hpclab.swarm

bundle: venv engine ## for a room without internet, all it needs in one file: make bundle INVENTORY=lab.ini SUITE=trixie FILE=room.tar
	$(PLAY) playbooks/bundle.yml -i $(INVENTORY) -e virtual_lab_suite=$(SUITE) $(if $(FILE),-e bundle_file=$(FILE))

test: venv ## every test, from nothing (15 to 25 minutes on 2 cores)
	@tests/run

test-long: venv ## what takes longer: a room of 16 PCs; every fault, by both drivers, and more of them; a NAS; images from elsewhere; a room without internet
	@HPCLAB_LONG=1 HPCLAB_FAULTS=100 tests/run engine bookworm one plugin room bundle

bench-deploy: demo ## figures: deploying again, scaling, latency and bandwidth
	tests/bench/deploy

bench-storage: demo ## figures: the shared folder beside plain sshfs and local disk
	tests/bench/storage

lint: venv ## yamllint, ansible-lint
	@tests/run lint

unit: venv ## unit tests, with both SDKs
	@tests/run unit unit_sdk5

sanity: venv ## ansible-test sanity
	@tests/run installed sanity

docs: venv ## writes docs/reference from the modules' and roles' own documentation
	scripts/docs

.PHONY: help venv engine lab demo login demo-down demo-purge bundle test test-long bench-deploy bench-storage lint unit sanity docs
