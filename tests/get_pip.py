# ansible-test fetches get-pip.py from a host of its own; this one takes pip from Python itself, so that the
# sanity tests need nothing but a package index. ansible-test calls it like pip's: package names and options.
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip"])
wanted = [arg for arg in sys.argv[1:] if arg not in ("--no-setuptools", "--no-wheel")]
subprocess.check_call([sys.executable, "-m", "pip", "install", *wanted])
