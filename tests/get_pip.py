# ansible-test fetches get-pip.py from a host of its own; this one takes the pip of .venv to install one into the
# environment at hand, so that the sanity tests need nothing but a package index. ansible-test calls it like pip's:
# package names and options.
import subprocess
import sys

wanted = [arg for arg in sys.argv[1:] if arg not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call(["pip", "--python", sys.executable, "install", *wanted])
