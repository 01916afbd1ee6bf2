# Copyright (c) 2026, the hpclab.swarm authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys
from pathlib import Path

# makes `import ansible_collections.hpclab.swarm…` find this tree
sys.path.insert(0, str(Path(__file__).parents[2] / ".venv/collections"))
